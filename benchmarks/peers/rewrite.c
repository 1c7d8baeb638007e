/* Responsible for the floor of an atomic write and of an edit: the same system calls in the same
 * order, and nothing else. What an edit searches for is at an offset that is given.
 *
 * A library, so that it runs in the process that it is compared with: on a busy machine a program
 * that has just been started is given the processor sooner than one that has run for long.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define TEMPORARY ".floor-0.tmp"
#define NEXT ".floor-1.tmp"

static char attributes[256];

static void need(int outcome, const char *what)
{
    if (outcome < 0) {
        perror(what);
        exit(1);
    }
}

static void look(int directory, const char *name)
{
    struct stat status;
    int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_PATH);

    need(file, "look");
    need(fstat(file, &status), "fstat");
    close(file);
}

static void replace(const char *parent, const char *name, const char *content, size_t size)
{
    struct stat status;
    char link[256];
    int directory = open(parent, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    int file, old;

    need(directory, "open the directory");
    if (readlinkat(directory, name, link, sizeof link) >= 0)
        exit(2);
    look(directory, name);
    file = openat(directory, TEMPORARY, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    need(file, "create");
    need(flock(file, LOCK_EX | LOCK_NB), "flock");
    need(fstatat(directory, TEMPORARY, &status, AT_SYMLINK_NOFOLLOW), "fstatat");
    need(fstat(file, &status), "fstat");
    if (fstatat(directory, NEXT, &status, AT_SYMLINK_NOFOLLOW) == 0)
        exit(3);
    old = openat(directory, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    need(old, "open the old file");
    flistxattr(old, attributes, sizeof attributes);
    close(old);
    while (size > 0) {
        ssize_t written = write(file, content, size);

        need(written < 0 ? -1 : 0, "write");
        content += written;
        size -= written;
    }
    need(fstat(file, &status), "fstat");
    need(fchmod(file, 0644), "fchmod");
    need(fsync(file), "fsync");
    look(directory, name);
    need(renameat(directory, TEMPORARY, directory, name), "renameat");
    need(fsync(directory), "fsync the directory");
    need(fstat(file, &status), "fstat");
    close(file);
    close(directory);
}

static void edit(const char *path, const char *parent, const char *name, size_t offset,
                 const char *new)
{
    struct stat status;
    size_t length = strlen(new), size = 0;
    ssize_t got;
    char *content, *edited;
    int file;

    need(stat(path, &status), "stat");
    file = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    need(file, "open");
    need(fstat(file, &status), "fstat");
    need(flock(file, LOCK_EX | LOCK_NB), "flock");
    need(stat(path, &status), "stat");
    need(fstat(file, &status), "fstat");
    content = malloc(status.st_size + 1);
    edited = malloc(status.st_size);
    if (!content || !edited)
        exit(4);
    while (size < (size_t)status.st_size) {
        got = read(file, content + size, status.st_size + 1 - size);
        need(got <= 0 ? -1 : 0, "read");
        size += got;
    }
    memcpy(edited, content, offset);
    memcpy(edited + offset, new, length);
    memcpy(edited + offset + length, content + offset + length, size - offset - length);
    replace(parent, name, edited, size);
    close(file);
    free(content);
    free(edited);
}

static double seconds_since(const struct timespec *began)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - began->tv_sec) + (now.tv_nsec - began->tv_nsec) / 1e9;
}

/* Seconds of `rounds` atomic writes of `size` bytes. */
double rewrite_write(const char *path, size_t size, int rounds)
{
    struct timespec began;
    char *parent = strdup(path), *name = strdup(path), *content = malloc(size + 1);
    char *directory = dirname(parent), *file = basename(name);
    double seconds;

    memset(content, 'x', size);
    clock_gettime(CLOCK_MONOTONIC, &began);
    while (rounds-- > 0)
        replace(directory, file, content, size);
    seconds = seconds_since(&began);
    free(parent);
    free(name);
    free(content);
    return seconds;
}

/* Seconds of `rounds` edits at `offset`; the two texts, of one length, take turns. */
double rewrite_edit(const char *path, size_t offset, const char *old, const char *new, int rounds)
{
    struct timespec began;
    char *parent = strdup(path), *name = strdup(path);
    char *directory = dirname(parent), *file = basename(name);
    double seconds;
    int round;

    clock_gettime(CLOCK_MONOTONIC, &began);
    for (round = 0; round < rounds; round++)
        edit(path, directory, file, offset, round % 2 ? old : new);
    seconds = seconds_since(&began);
    free(parent);
    free(name);
    return seconds;
}
