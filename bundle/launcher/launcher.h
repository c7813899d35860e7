/* What our own loader isn't told: variables that begin so. While it works, their first letter is `hidden`. */
static const char hidden_names[][16] = {"LD_", "GLIBC_TUNABLES="};

/* No name in this environment begins with it and goes on like one of those. */
__attribute__((visibility("hidden"))) extern char hidden;

/* Which of the names this variable goes on like after its first letter; NULL if it doesn't. */
static inline const char *named_like(const char *variable) {
  for (unsigned one = 0; one < sizeof hidden_names / sizeof *hidden_names; one++) {
    const char *name = hidden_names[one];
    unsigned at = 1;
    while (*variable && name[at] && variable[at] == name[at]) at++;
    if (!name[at]) return name;
  }
  return 0;
}
