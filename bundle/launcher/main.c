/* A program of the bundle: Python, told where everything is, and deaf to the app's environment.
 *
 * PYTHONPATH, PYTHONHOME and their like are for an app in Python: it inherits them, and we don't look at them.
 * Nothing is searched for either: no site, no .pth files, no directories above this one; it is 5 ms sooner.
 *
 * With MODULE (and nothing else) defined, this calls main() of that module of ours; without it, it is a Python as people
 * know it, which our own processes are started with.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "launcher.h"

#define STRINGIFY(text) #text
#define QUOTED(text) STRINGIFY(text)
#define VERSION QUOTED(PY_MAJOR_VERSION) "." QUOTED(PY_MINOR_VERSION)

extern char **environ;

/* What `hide` has hidden from our own loader: before anybody reads the environment. */
static void show_hidden(void) {
  for (char **one = environ; *one; one++) {
    const char *name = named_like(*one);
    if (name && **one == hidden) **one = *name;
  }
}

/* Where the bundle is: two levels above this file, whatever link it was started by. */
static void find_root(char *root) {
  ssize_t count = readlink("/proc/self/exe", root, PATH_MAX - 1);
  if (count > 0)
    root[count] = 0;
  else if (!realpath((const char *)getauxval(AT_EXECFN), root)) { /* no /proc */
    fputs("entrypoint: cannot find the bundle's own directory; mount /proc\n", stderr);
    exit(127);
  }
  for (int up = 0; up < 2; up++) {
    char *slash = strrchr(root, '/');
    if (slash) *slash = 0;
  }
}

static void must(PyStatus status) {
  if (PyStatus_Exception(status)) Py_ExitStatusException(status);
}

static void set(PyConfig *config, wchar_t **field, const char *root, const char *end) {
  char path[2 * PATH_MAX];
  snprintf(path, sizeof path, "%s%s", root, end);
  must(PyConfig_SetBytesString(config, field, path));
}

static void add(PyConfig *config, const char *root, const char *end) {
  wchar_t *path = NULL;
  set(config, &path, root, end);
  must(PyWideStringList_Append(&config->module_search_paths, path));
  PyMem_RawFree(path);
}

static void configure(PyConfig *config, const char *root) {
  config->use_environment = 0;
  config->user_site_directory = 0;
  config->site_import = 0;
  config->pathconfig_warnings = 0;
  config->write_bytecode = 0; /* the image's files stay as they are */
  set(config, &config->program_name, root, "/bin/python3");
  set(config, &config->executable, root, "/bin/python3");
  set(config, &config->base_executable, root, "/bin/python3");
  set(config, &config->prefix, root, "");
  set(config, &config->exec_prefix, root, "");
  set(config, &config->base_prefix, root, "");
  set(config, &config->base_exec_prefix, root, "");
  set(config, &config->stdlib_dir, root, "/lib/python" VERSION);
  config->module_search_paths_set = 1;
  add(config, root, "/lib/python" VERSION);
  add(config, root, "/site-packages");
}

#ifdef MODULE
static int run(void) {
  PyObject *module = PyImport_ImportModule(MODULE);
  PyObject *result = module ? PyObject_CallMethod(module, "main", NULL) : NULL;
  if (!result) PyErr_Print(); /* ends the process, where it is a SystemExit */
  return Py_FinalizeEx() < 0 || !result;
}
#endif

int main(int argc, char **argv) {
  static char root[PATH_MAX];
  PyPreConfig before;
  PyConfig config;
  show_hidden();
  find_root(root);
  PyPreConfig_InitPythonConfig(&before);
  before.use_environment = 0;
  before.utf8_mode = 1; /* whatever locale the image has, or hasn't */
  before.configure_locale = 0;
  before.coerce_c_locale = 0; /* it would put LC_CTYPE into the app's environment */
#ifdef MODULE
  before.parse_argv = 0;
#endif
  must(Py_PreInitializeFromBytesArgs(&before, argc, argv));
  PyConfig_InitPythonConfig(&config);
#ifdef MODULE
  config.parse_argv = 0;
  config.safe_path = 1;
#endif
  must(PyConfig_SetBytesArgv(&config, argc, argv));
  configure(&config, root);
  must(Py_InitializeFromConfig(&config));
  PyConfig_Clear(&config);
#ifdef MODULE
  return run();
#else
  return Py_RunMain();
#endif
}
