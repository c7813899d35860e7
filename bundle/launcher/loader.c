/* Before main: loads the bundle's own dynamic loader, so that nothing of the image's C library is needed.
 *
 * A program names its loader by an absolute path, and the kernel starts that. Ours can be anywhere, and the image
 * may hold another one, or none. So this program names none: the kernel starts it at `begin` (what the kernel does
 * for a static program), which maps lib/<LOADER> from beside it, tells it through the auxiliary vector what the
 * kernel would have told it, and jumps there. From then on all is as usual, but with our libraries, which the
 * loader finds by our DT_RPATH.
 *
 * Nothing is relocated yet when this runs: no library, no pointer to anything of our own in static data.
 */
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "launcher.h"

#ifndef LOADER
#error "LOADER: the file name of the dynamic loader, e.g. ld-linux-x86-64.so.2"
#endif

#define MOST_HEADERS 32
#define PROGRAM "entrypoint"

__attribute__((visibility("hidden"))) extern const ElfW(Ehdr) __ehdr_start;
__attribute__((visibility("hidden"))) extern ElfW(Dyn) _DYNAMIC[];
__attribute__((visibility("hidden"))) extern void _start(void);

#if defined(__x86_64__)

__asm__(".text\n"
        ".global begin\n"
        ".type begin,@function\n"
        "begin:\n"
        "  xor %ebp, %ebp\n"
        "  mov %rsp, %rdi\n"
        "  mov %rsp, %rbx\n"
        "  and $-16, %rsp\n"
        "  call load_loader\n"
        "  mov %rbx, %rsp\n"
        "  xor %edx, %edx\n"
        "  jmp *%rax\n");

static long call(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

#elif defined(__aarch64__)

__asm__(".text\n"
        ".global begin\n"
        ".type begin,%function\n"
        "begin:\n"
        "  mov x29, #0\n"
        "  mov x30, #0\n"
        "  mov x0, sp\n"
        "  bl load_loader\n"
        "  mov x16, x0\n"
        "  mov x0, #0\n"
        "  mov x29, #0\n"
        "  mov x30, #0\n"
        "  br x16\n");

static long call(long number, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}

#else
#error "cannot start on this processor: begin and call are written for x86-64 and aarch64 only"
#endif

static size_t length(const char *text) {
  size_t count = 0;
  while (text[count]) {
    __asm__ volatile(""); /* or the compiler makes it a call of strlen, which isn't there yet */
    count++;
  }
  return count;
}

static void say(const char *text) { call(SYS_write, 2, (long)text, (long)length(text), 0, 0, 0); }

__attribute__((noreturn)) static void give_up(const char *path, const char *reason) {
  say(PROGRAM ": cannot start: ");
  say(path);
  say(reason);
  for (;;) call(SYS_exit_group, 127, 0, 0, 0, 0, 0);
}

static void map(const char *path, uintptr_t address, uintptr_t bytes, int protection, int flags, int file, uintptr_t offset) {
  long result = call(SYS_mmap, (long)address, (long)bytes, protection, flags, file, (long)offset);
  if (result < 0 && result > -4096) give_up(path, " can't be loaded: no memory, or a file system mounted noexec\n");
}

static int is_of_our_kind(const ElfW(Ehdr) * head, size_t bytes_read) {
  for (int i = 0; i <= EI_CLASS; i++)
    if (head->e_ident[i] != __ehdr_start.e_ident[i]) return 0;
  return head->e_machine == __ehdr_start.e_machine && head->e_type == ET_DYN &&
         head->e_phoff + head->e_phnum * sizeof(ElfW(Phdr)) <= bytes_read;
}

/* How much of a file is mapped: behind its end there would be a SIGBUS. */
static uintptr_t end_of(const ElfW(Phdr) * headers, int many) {
  uintptr_t end = 0;
  for (int i = 0; i < many; i++)
    if (headers[i].p_type == PT_LOAD && headers[i].p_offset + headers[i].p_filesz > end)
      end = headers[i].p_offset + headers[i].p_filesz;
  return end;
}

/* Map the loader as the kernel would; where its first page is. */
static uintptr_t map_loader(const char *path, const ElfW(Ehdr) * head, const ElfW(Phdr) * headers, int file, uintptr_t page) {
  uintptr_t end = 0;
  for (int i = 0; i < head->e_phnum; i++)
    if (headers[i].p_type == PT_LOAD && headers[i].p_vaddr + headers[i].p_memsz > end)
      end = headers[i].p_vaddr + headers[i].p_memsz;
  /* All of the room at once, aligned for whatever size pages have here. */
  const uintptr_t most_page_bytes = 65536;
  long room = call(SYS_mmap, 0, (long)(end + most_page_bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room < 0 && room > -4096) give_up(path, " can't be loaded: no memory\n");
  uintptr_t base = ((uintptr_t)room + most_page_bytes - 1) & ~(most_page_bytes - 1);
  for (int i = 0; i < head->e_phnum; i++) {
    const ElfW(Phdr) *one = &headers[i];
    if (one->p_type != PT_LOAD) continue;
    int protection = (one->p_flags & PF_R ? PROT_READ : 0) | (one->p_flags & PF_W ? PROT_WRITE : 0) |
                     (one->p_flags & PF_X ? PROT_EXEC : 0);
    uintptr_t skew = one->p_vaddr & (page - 1);
    uintptr_t start = base + one->p_vaddr - skew;
    map(path, start, one->p_filesz + skew, protection, MAP_PRIVATE | MAP_FIXED, file, one->p_offset - skew);
    if (one->p_memsz <= one->p_filesz) continue;
    /* What isn't in the file is zero: all the rest of the last page (the loader's first malloc uses it), and pages. */
    volatile char *zero = (volatile char *)(base + one->p_vaddr + one->p_filesz);
    uintptr_t next = ((uintptr_t)zero + page - 1) & ~(page - 1);
    uintptr_t last = base + one->p_vaddr + one->p_memsz;
    while ((uintptr_t)zero < next) *zero++ = 0;
    if (last > next)
      map(path, next, last - next, protection, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
  }
  return base;
}

/* `path` becomes ../lib from the file that we are; its length. */
static size_t find_libraries(char *path, size_t size, const char *started_as) {
  static const char below[] = "/lib", beside[] = "/../lib";
  const char *end = below;
  long count = call(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)path, (long)size, 0, 0);
  if (count <= 0) { /* no /proc: not every directory of this name may be there, so go up by `..` */
    end = beside;
    for (count = 0; started_as[count] && (size_t)count < size; count++) path[count] = started_as[count];
  }
  for (int up = 0; up < (end == below ? 2 : 1); up++) {
    while (count > 0 && path[count - 1] != '/') count--;
    while (count > 0 && path[count - 1] == '/') count--;
  }
  if (end == beside && started_as[0] != '/' && count == 0) path[count++] = '.';
  if ((size_t)count + sizeof beside + sizeof LOADER > size) give_up(started_as, " lies too deep\n");
  for (; *end; end++) ((volatile char *)path)[count++] = *end;
  return (size_t)count;
}

/* Make our DT_RPATH an absolute one: a loader makes nothing of $ORIGIN where /proc isn't mounted, nor in a program that
 * has rights of its own or that a security module has put into another domain (AT_SECURE); it would take the image's
 * libraries, or none. */
static void name_directory(const char *path) {
  ElfW(Dyn) *rpath = NULL;
  uintptr_t strings = 0;
  for (const char *one = path; *one; one++)
    if (*one == ':') return; /* it parts directories there, unlike in what $ORIGIN stands for */
  for (ElfW(Dyn) *one = _DYNAMIC; one->d_tag != DT_NULL; one++) {
    if (one->d_tag == DT_RPATH) rpath = one;
    if (one->d_tag == DT_STRTAB) strings = (uintptr_t)&__ehdr_start + one->d_un.d_ptr;
  }
  if (rpath && strings) rpath->d_un.d_val = (uintptr_t)path - strings;
}

char hidden = 1;

/* Hide what the app's loader is told from ours; main shows it again, in the same place. */
static void hide(char **environment) {
  for (char **one = environment; *one; one++)
    if (**one == hidden && named_like(*one)) {
      hidden++;
      one = environment - 1;
    }
  for (char **one = environment; *one; one++) {
    const char *name = named_like(*one);
    if (name && **one == *name) **one = hidden;
  }
}

/* Tell the loader of program headers that the linker leaves out where no loader is named: where we are, and its name. */
static void introduce(ElfW(auxv_t) * where, ElfW(auxv_t) * many) {
  static const char name[] = LOADER;
  static ElfW(Phdr) headers[MOST_HEADERS + 2];
  uintptr_t base = (uintptr_t)&__ehdr_start;
  size_t count = many->a_un.a_val;
  if (count > MOST_HEADERS) give_up(PROGRAM, " has too many program headers\n");
  const ElfW(Phdr) *given = (const ElfW(Phdr) *)where->a_un.a_val;
  headers[0] = (ElfW(Phdr)){.p_type = PT_PHDR, .p_flags = PF_R, .p_vaddr = (uintptr_t)headers - base};
  headers[1] = (ElfW(Phdr)){.p_type = PT_INTERP, .p_flags = PF_R, .p_vaddr = (uintptr_t)name - base};
  headers[1].p_memsz = headers[1].p_filesz = sizeof name;
  for (size_t i = 0; i < count; i++) headers[2 + i] = given[i];
  where->a_un.a_val = (uintptr_t)headers;
  many->a_un.a_val = count + 2;
}

/* Called by `begin` with the stack as the kernel made it; the address to go on at. */
__attribute__((used, visibility("hidden"))) uintptr_t load_loader(uintptr_t *stack) {
  char **environment = (char **)(stack + 1 + stack[0] + 1);
  hide(environment);
  while (*environment) environment++;
  ElfW(auxv_t) *facts = (ElfW(auxv_t) *)(environment + 1), *base = NULL, *entry = NULL, *where = NULL, *many = NULL;
  uintptr_t page = 4096;
  const char *started_as = PROGRAM;
  for (ElfW(auxv_t) *one = facts; one->a_type != AT_NULL; one++) {
    if (one->a_type == AT_BASE) base = one;
    if (one->a_type == AT_ENTRY) entry = one;
    if (one->a_type == AT_PHDR) where = one;
    if (one->a_type == AT_PHNUM) many = one;
    if (one->a_type == AT_PAGESZ) page = one->a_un.a_val;
    if (one->a_type == AT_EXECFN) started_as = (const char *)one->a_un.a_val;
  }
  static char path[4096 + 64];
  static const char name[] = "/" LOADER;
  size_t directory = find_libraries(path, sizeof path, started_as);
  for (size_t i = 0; i < sizeof name; i++) ((volatile char *)path)[directory + i] = name[i];
  if (!entry || !where || !many) give_up(path, " can't be told what it needs: an unknown kernel\n");

  static union {
    ElfW(Ehdr) head;
    char bytes[4096];
  } start;
  long file = call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
  if (file < 0) give_up(path, " can't be opened; copy the whole directory of the bundle, not only its programs\n");
  long count = call(SYS_pread64, file, (long)&start, sizeof start, 0, 0, 0);
  if (count < (long)sizeof start || !is_of_our_kind(&start.head, sizeof start))
    give_up(path, " isn't a dynamic loader for this program\n");
  const ElfW(Phdr) *headers = (const ElfW(Phdr) *)(start.bytes + start.head.e_phoff);
  if (end_of(headers, start.head.e_phnum) > (uintptr_t)call(SYS_lseek, file, 0, SEEK_END, 0, 0, 0))
    give_up(path, " isn't whole; copy the bundle again\n");
  uintptr_t loaded = map_loader(path, &start.head, headers, (int)file, page);
  call(SYS_close, file, 0, 0, 0, 0, 0);

  path[directory] = 0;
  name_directory(path);
  introduce(where, many);
  /* Only debuggers ask for it, and not every kernel (gVisor's) tells it to a program that names no loader. */
  if (base) base->a_un.a_val = loaded;
  entry->a_un.a_val = (uintptr_t)&_start;
  return loaded + start.head.e_entry;
}
