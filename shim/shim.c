// SPDX-License-Identifier: Apache-2.0
//
// shim: what a container runtime executes as a CNI plugin. It carries environment and stdin to the node's agent and
// stdout and exit code back; its own name (argv[0]) is the plugin's type. No network logic lives here.
//
//   mode agent       no agent: ADD waits for it, then error 11; DEL is put into the spool and succeeds; STATUS is error 50
//   mode standalone  no agent: `NODE [FLAG...] PLUGIN TYPE [FD]`, the same code in one process, takes this one over. FD (ADD
//                    only) has a shared lock of DATA/starting: who asks the cloud first waits for the wishes of those who
//                    have begun
//
// Settings come from /etc/mooring/mode (written by `mooring install`; another file: $MOORING_CONFIG), lines KEY=VALUE:
// mode, socket, data, node, plugin; $MOORING_MODE, $MOORING_SOCKET, $MOORING_DATA_DIR win over them.
//
// Wire format, little-endian, both ways: u32 length of what follows, then
//   request: u32 netns (number of the descriptor that holds CNI_NETNS, ~0: none), u32 length and bytes of: type,
//            environment (NUL after each), stdin
//   answer:  u32 exit code, u32 length and bytes of: stdout, stderr
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char versions[] = "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";
enum { STDIN_MAX = 1 << 20, ANSWER_MAX = 8 << 20, ANSWER_MS = 110000, STATUS_MS = 10000, STDIN_MS = 10000, RETRY_MS = 20 };

// Found in the file by whoever must know whether an executable is this shim.
__attribute__((used)) static const char marker[] = "mooring-shim/1";
static char *mode = "standalone", *socket_path = "/run/mooring/agent.sock", *data_dir = "/var/lib/mooring", *node, *plugin;
static char *config; static size_t config_length; // stdin
static int connect_error;

static const char *env(const char *name) {
  return getenv(name) ? getenv(name) : "";
}

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int write_all(int fd, const void *data, size_t length) {
  for (const char *at = data; length > 0;) {
    ssize_t n = write(fd, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -1;
    at += n, length -= n;
  }
  return 0;
}

// Ends with an error object (CNI specification, "Error"). The texts are ours: nothing in them needs escaping.
static void fail(int code, const char *msg, const char *details) {
  char out[1024], version[16] = "";
  const char *key = config ? memmem(config, config_length, "\"cniVersion\"", 12) : NULL;
  if (!key || sscanf(key + 12, " : \"%15[0-9.]\"", version) != 1) version[0] = 0;
  int n = snprintf(out, sizeof out, "{\n    \"cniVersion\": \"%s\",\n    \"code\": %d,\n    \"msg\": \"%s\",\n    \"details\": \"%s\"\n}",
                   version[0] ? version : "0.1.0", code, msg, details);
  write_all(1, out, n);
  exit(1);
}

static void *must(void *memory) {
  if (!memory) fail(5, "Cannot carry the request: out of memory", "");
  return memory;
}

static void read_settings(void) {
  const char *path = getenv("MOORING_CONFIG");
  FILE *file = fopen(path ? path : "/etc/mooring/mode", "re");
  char line[4096];
  while (file && fgets(line, sizeof line, file)) {
    char *value = strchr(line, '=');
    if (!value) continue;
    *value++ = 0;
    value[strcspn(value, "\r\n")] = 0;
    char **setting = !strcmp(line, "mode") ? &mode : !strcmp(line, "socket") ? &socket_path
                   : !strcmp(line, "data") ? &data_dir : !strcmp(line, "node") ? &node
                   : !strcmp(line, "plugin") ? &plugin : NULL;
    if (setting) *setting = must(strdup(value));
  }
  if (file) fclose(file);
  if (getenv("MOORING_MODE")) mode = getenv("MOORING_MODE");
  if (getenv("MOORING_SOCKET")) socket_path = getenv("MOORING_SOCKET");
  if (getenv("MOORING_DATA_DIR")) data_dir = getenv("MOORING_DATA_DIR");
}

static int try_connect(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(socket_path) >= sizeof address.sun_path) fail(4, "Cannot reach the agent: the path of its socket is too long", "");
  strcpy(address.sun_path, socket_path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // A stopped agent, its backlog or buffer full, must not hold the runtime for ever.
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = 20}, sizeof(struct timeval));
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  connect_error = errno;
  return close(fd), -1;
}

// For who cannot reach the agent. The path is the user's, and stands in JSON.
static const char *start_it(void) {
  static char text[256];
  snprintf(text, sizeof text, "start it: mooring agent. Its socket %s: %s", socket_path, strerror(connect_error));
  for (char *c = text; *c; c++)
    if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '?';
  return text;
}

static int connect_within(int64_t ms) {
  for (int64_t end = now_ms() + ms;;) {
    int fd = try_connect();
    if (fd >= 0 || now_ms() >= end) return fd;
    nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
  }
}

static int wait_for(int fd, int64_t end) {
  for (;;) {
    int64_t left = end - now_ms();
    int n = poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, left > 0 ? (int)left : 0);
    if (n >= 0 || errno != EINTR) return n > 0;
  }
}

static void read_stdin(void) {
  int64_t end = now_ms() + STDIN_MS;
  config = must(malloc(STDIN_MAX + 1));
  for (;;) {
    if (!wait_for(0, end)) fail(5, "Cannot read the network configuration: stdin stays open", "close stdin after writing it");
    ssize_t n = read(0, config + config_length, STDIN_MAX + 1 - config_length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(5, "Cannot read the network configuration from stdin", strerror(errno));
    if (n == 0) return;
    if ((config_length += n) > STDIN_MAX) fail(6, "Cannot read the network configuration: it has more than 1 MiB", "");
  }
}

static char *put(char *at, const void *data, uint32_t length) {
  memcpy(at, &length, 4);
  memcpy(at + 4, data, length);
  return at + 4 + length;
}

// The request with its leading length; the whole of it is what the spool keeps.
static char *make_request(const char *type, uint32_t netns, size_t *length) {
  size_t environment = 0;
  for (char **e = environ; *e; e++) environment += strlen(*e) + 1;
  *length = 4 + 4 + 4 + strlen(type) + 4 + environment + 4 + config_length;
  char *request = must(malloc(*length)), *joined = must(malloc(environment + 1)), *at = joined;
  for (char **e = environ; *e; e++) at = stpcpy(at, *e) + 1;
  uint32_t rest = *length - 4;
  memcpy(request, &rest, 4);
  memcpy(request + 4, &netns, 4);
  at = put(request + 8, type, strlen(type));
  at = put(at, joined, environment);
  put(at, config, config_length);
  free(joined);
  return request;
}

static int read_all(int fd, void *data, size_t length, int64_t end) {
  for (char *at = data; length > 0;) {
    if (!wait_for(fd, end)) return -2;
    ssize_t n = read(fd, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -1;
    at += n, length -= n;
  }
  return 0;
}

// Sends the request and prints the answer. Returns only where there was none: -1 the agent went away, -2 time is over.
static int ask(int fd, const char *request, size_t length) {
  int64_t end = now_ms() + (strcmp(env("CNI_COMMAND"), "STATUS") ? ANSWER_MS : STATUS_MS);
  uint32_t size, code, out, err;
  if (write_all(fd, request, length) < 0) return -1;
  int status = read_all(fd, &size, 4, end);
  if (status < 0) return status;
  if (size < 12 || size > ANSWER_MAX) return -1;
  char *answer = must(malloc(size));
  if ((status = read_all(fd, answer, size, end)) < 0) return status;
  memcpy(&code, answer, 4);
  memcpy(&out, answer + 4, 4);
  if (out > size - 12) return -1;
  memcpy(&err, answer + 8 + out, 4);
  if (err != size - 12 - out) return -1;
  write_all(2, answer + 12 + out, err);
  if (write_all(1, answer + 8, out) < 0) exit(1);
  exit(code);
}

static void sync_directory(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) < 0) fail(5, "Cannot keep the DEL for the agent", strerror(errno));
  close(fd);
}

// Promises the DEL: synced to disk before it is answered. The agent works the spool off before its first ADD.
static void spool(const char *request, size_t length) {
  char directory[3072], path[3200], draft[3210];
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if ((size_t)snprintf(directory, sizeof directory, "%s/spool", data_dir) >= sizeof directory)
    fail(4, "Cannot keep the DEL for the agent: the path of the data directory is too long", "");
  mkdir(data_dir, 0700);
  if (mkdir(directory, 0700) == 0) sync_directory(data_dir);
  snprintf(path, sizeof path, "%s/%lld%09ld-%d", directory, (long long)t.tv_sec, t.tv_nsec, getpid());
  snprintf(draft, sizeof draft, "%s.draft", path);
  int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0 || write_all(fd, request, length) < 0 || fsync(fd) < 0 || close(fd) < 0 || rename(draft, path) < 0) {
    unlink(draft);
    fail(11, "Cannot keep the DEL for the agent, which does not run", strerror(errno));
  }
  sync_directory(directory);
  exit(0);
}

// What it returns stays open in Node.js and is closed there; NULL where it cannot be had, then nobody waits for this call.
static char *lock_starting(void) {
  static char path[4096], text[16];
  mkdir(data_dir, 0700);
  snprintf(path, sizeof path, "%s/starting", data_dir);
  int fd = open(path, O_RDONLY | O_CREAT | O_NOFOLLOW, 0600);
  if (fd < 0) return NULL;
  if (flock(fd, LOCK_SH | LOCK_NB) < 0) return close(fd), NULL;
  snprintf(text, sizeof text, "%d", fd);
  return text;
}

// Arguments for V8 in a process that lives for one call, from PLUGIN.flags (scripts/bundle.ts): "SIZE FLAG FLAG...\n". They are
// for the Node.js of SIZE bytes: another one might not know them, and would not start. A line without its end was cut off.
static char **put_flags(char **next, char **end) {
  static char path[4096], line[1024];
  struct stat executable;
  snprintf(path, sizeof path, "%s.flags", plugin);
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
  close(fd);
  char *flags = line;
  if (length < 1 || line[length - 1] != '\n' || stat(node, &executable) < 0 || strtoll(line, &flags, 10) != executable.st_size) return next;
  for (char *flag = strtok(flags, " \n"); flag && next < end; flag = strtok(NULL, " \n")) *next++ = flag;
  return next;
}

int main(int argc __attribute__((unused)), char **argv) {
  signal(SIGPIPE, SIG_IGN);
  int spare; // A standard stream that the caller closed must not become the socket.
  while ((spare = open("/dev/null", O_RDWR)) >= 0 && spare <= 2) {}
  close(spare);
  const char *slash = strrchr(argv[0], '/'), *type = slash ? slash + 1 : argv[0], *command = env("CNI_COMMAND");
  if (!*command)
    return fprintf(stderr, "CNI plugin %s of Mooring\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n", type) < 0;
  if (!strcmp(command, "VERSION"))
    return write_all(1, versions, sizeof versions - 1) < 0;
  read_settings();
  int agent = !strcmp(mode, "agent"), fd = try_connect();
  if (fd < 0 && !agent) {
    if (!node || !plugin) fail(4, "Cannot run the plugin: no agent, and nothing installed", "run mooring install, which writes /etc/mooring/mode");
    setenv("MOORING_DATA_DIR", data_dir, 1);
    struct rlimit files; // Node.js aborts without an answer where it may open only a few
    if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < 64 && setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, files.rlim_max > 1024 ? files.rlim_max : 1024}))
      fail(5, "Cannot run the plugin: it may open too few files", "raise the limit (ulimit -n), 1024 are enough");
    char *arguments[20] = {node}, **next = put_flags(arguments + 1, arguments + 16);
    next[0] = plugin, next[1] = (char *)type, next[2] = strcmp(command, "ADD") ? NULL : lock_starting();
    execv(node, arguments);
    fail(5, "Cannot run the plugin: Node.js cannot be executed", strerror(errno));
  }
  int64_t begin = now_ms();
  read_stdin();
  if (fd >= 0 && now_ms() - begin > 2000) close(fd), fd = try_connect(); // the agent drops who is silent for long
  const char *path = env("CNI_NETNS");
  int netns = *path ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
  size_t length;
  char *request = make_request(type, netns, &length);
  if (fd < 0) fd = connect_within(!strcmp(command, "ADD") || !strcmp(command, "CHECK") ? 20000 : !strcmp(command, "GC") ? 5000 : 0);
  int status = fd < 0 ? -1 : ask(fd, request, length);
  if (agent && !strcmp(command, "DEL")) spool(request, length); // else nobody might ever come for it
  if (!strcmp(command, "STATUS")) fail(50, fd < 0 ? "Cannot serve: the agent does not run" : "Cannot serve: the agent does not answer", fd < 0 ? start_it() : "start it again: mooring agent");
  fail(11, fd < 0 ? "Cannot reach the agent" : status == -2 ? "Cannot wait for the agent any longer" : "Cannot finish: the agent went away",
       fd < 0 ? start_it() : "see that mooring agent runs");
}
