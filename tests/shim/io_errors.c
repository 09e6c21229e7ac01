/* Make system calls on chosen files fail, for one process: LD_PRELOAD=io_errors.so HORIZON_IO_RULES=FILE program
 *
 * FILE holds lines "CALL ERRNO SUFFIX", for example "sync 5 .db-wal": from then on every fsync or fdatasync (sync), or every write,
 * pwrite or pwrite64 (write), of a file whose path ends in SUFFIX fails with that error number. FILE is read again at every call, so
 * a test steers a running process by writing it anew; an empty or missing one lets everything through. Each refusal appends its rule to
 * FILE.refused, so that a test knows that what it prepared did happen. "kill COUNT SUFFIX" ends the process by SIGKILL at that write.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char *file, const char *call, int number, const char *suffix)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.refused", file);
    FILE *refused = fopen(path, "ae");
    if (refused) {
        fprintf(refused, "%s %d %s\n", call, number, suffix);
        fclose(refused);
    }
}

static int refuses(const char *call, int fd)
{
    char link[32], path[4096], rules[4096], rule_call[16], suffix[256];
    int number, used;
    const char *file = getenv("HORIZON_IO_RULES");
    int rules_fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t size = rules_fd < 0 ? 0 : read(rules_fd, rules, sizeof rules - 1);
    if (rules_fd >= 0)
        close(rules_fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = size > 0 ? readlink(link, path, sizeof path - 1) : 0;
    if (size <= 0 || length <= 0)
        return 0;
    rules[size] = path[length] = 0;
    for (const char *at = rules; sscanf(at, "%15s %d %255s%n", rule_call, &number, suffix, &used) == 3; at += used) {
        static int writes;
        size_t end = strlen(suffix);
        if (end > (size_t)length || strcmp(path + length - end, suffix))
            continue;
        if (!strcmp(rule_call, "kill") && !strcmp(call, "write") && ++writes == number) {
            note(file, rule_call, number, suffix);
            kill(getpid(), SIGKILL);
        }
        if (!strcmp(rule_call, call)) {
            note(file, call, number, suffix);
            errno = number;
            return 1;
        }
    }
    return 0;
}

#define OR_FAIL(call, name, type, parameters, arguments)                           \
    type name parameters                                                           \
    {                                                                              \
        static type(*real) parameters;                                             \
        if (!real)                                                                 \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                    \
        return refuses(call, fd) ? -1 : real arguments;                            \
    }

OR_FAIL("sync", fsync, int, (int fd), (fd))
OR_FAIL("sync", fdatasync, int, (int fd), (fd))
OR_FAIL("write", write, ssize_t, (int fd, const void *data, size_t size), (fd, data, size))
OR_FAIL("write", pwrite, ssize_t, (int fd, const void *data, size_t size, off_t offset), (fd, data, size, offset))
OR_FAIL("write", pwrite64, ssize_t, (int fd, const void *data, size_t size, off64_t offset), (fd, data, size, offset))
