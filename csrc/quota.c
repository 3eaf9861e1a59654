/* The processor time that Linux's control groups grant, in version 1, version 2 or both at once.
 * Knows files and nothing of threads. What cannot be read sets no limit.
 *
 * Formats: cgroups(7), proc_pid_mountinfo(5), and cpu.max in the kernel's cgroup-v2 documentation.
 */
#include "quota.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* More than Linux lets a path have. A longer line of a file is read in pieces, none of which is
 * mistaken for a control group's. */
enum { LINE = 8192 };

/* Where a hierarchy of control groups that can limit processor time is mounted. */
struct hierarchy {
    bool version_2;
    char top[LINE];   /* the group that the mount point shows */
    char mount[LINE]; /* the mount point */
};

static bool has_word(const char *list, const char *word) {
    const size_t length = strlen(word);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, word, length) == 0 && (p[length] == ',' || p[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/* "31 23 0:28 <top> <mount> <options> ... - <type> <source> <options>" */
static bool parse_mount(const char *line, struct hierarchy *hierarchy) {
    char type[64], options[LINE];
    const char *rest = strstr(line, " - ");
    if (!rest || strlen(line) >= LINE - 1 ||
        sscanf(line, "%*s %*s %*s %8191s %8191s", hierarchy->top, hierarchy->mount) != 2 ||
        sscanf(rest, " - %63s %*s %8191s", type, options) != 2) {
        return false;
    }
    hierarchy->version_2 = strcmp(type, "cgroup2") == 0;
    return hierarchy->version_2 || (strcmp(type, "cgroup") == 0 && has_word(options, "cpu"));
}

static FILE *open_file(const char *root, const char *folder, const char *name) {
    char path[3 * LINE];
    const int length = snprintf(path, sizeof path, "%s%s/%s", root, folder, name);
    return length > 0 && (size_t)length < sizeof path ? fopen(path, "re") : NULL;
}

/* The group of this process, from lines "<number>:<controllers>:<group>"; version 2 has number 0.
 */
static bool find_group(const char *root, bool version_2, char *group) {
    FILE *file = open_file(root, "/proc/self", "cgroup");
    char line[LINE];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        char *const controllers = strchr(line, ':');
        char *const path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (path) {
            *path = '\0';
            found = version_2 ? strncmp(line, "0:", 3) == 0 : has_word(controllers + 1, "cpu");
            (void)strcpy(group, path + 1);
            group[strcspn(group, "\n")] = '\0';
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return found;
}

/* The numbers a file of a group begins with; how many there are. */
static int read_numbers(const char *root, const char *folder, const char *name, double *first,
                        double *second) {
    FILE *file = open_file(root, folder, name);
    if (!file) {
        return 0;
    }
    const int count = fscanf(file, "%lf %lf", first, second);
    (void)fclose(file);
    return count;
}

/* The processors' worth of time one group allows; infinity where it sets no limit, for which
 * version 2 says "max" and version 1 says -1. */
static double limit_of(const char *root, bool version_2, const char *folder) {
    double quota = 0, period = 0, none = 0;
    const bool read =
        version_2 ? read_numbers(root, folder, "cpu.max", &quota, &period) == 2
                  : read_numbers(root, folder, "cpu.cfs_quota_us", &quota, &none) == 1 &&
                        read_numbers(root, folder, "cpu.cfs_period_us", &period, &none) == 1;
    return read && quota > 0 && period > 0 ? quota / period : INFINITY;
}

/* The smallest limit of the process's group and all groups above it that can be seen. */
static double limit_in(const char *root, const struct hierarchy *hierarchy) {
    char group[LINE], folder[2 * LINE];
    if (!find_group(root, hierarchy->version_2, group)) {
        return INFINITY;
    }
    /* In a container, the mount point may show the container's group, or one above it. */
    const size_t top = strcmp(hierarchy->top, "/") == 0 ? 0 : strlen(hierarchy->top);
    const bool below = strncmp(group, hierarchy->top, top) == 0 && group[top] == '/';
    (void)snprintf(folder, sizeof folder, "%s%s", hierarchy->mount, below ? group + top : "");
    double limit = INFINITY;
    for (char *end = folder + strlen(folder); end; end = strrchr(folder, '/')) {
        *end = '\0';
        if (strlen(folder) < strlen(hierarchy->mount)) {
            break;
        }
        limit = fmin(limit, limit_of(root, hierarchy->version_2, folder));
    }
    return limit;
}

int xent_quota(const char *root) {
    FILE *file = open_file(root, "/proc/self", "mountinfo");
    if (!file) {
        return 0;
    }
    double limit = INFINITY;
    char line[LINE];
    while (fgets(line, sizeof line, file)) {
        struct hierarchy hierarchy;
        if (parse_mount(line, &hierarchy)) {
            limit = fmin(limit, limit_in(root, &hierarchy));
        }
    }
    (void)fclose(file);
    return limit < 1e6 ? (int)ceil(limit) : 0;
}
