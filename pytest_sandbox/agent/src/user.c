#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire.h"

/* musl's and glibc's own look-ups ask daemons and load modules; the two files are all that a sandbox promises.
 * A table is read once: every operation runs in a process of its own, so it can't go stale. */
#define MAX_TABLE (4u * 1024 * 1024)
#define FIELDS 7

struct table {
    const char *path;
    bool read;
    char **fields; /* FIELDS of each line, one line after the other */
    size_t count;
};

static struct table passwd = {.path = "/etc/passwd"}, group = {.path = "/etc/group"};

static char *read_table(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    struct stat st;
    char *text = NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= MAX_TABLE) {
        text = xrealloc(NULL, (size_t)st.st_size + 1);
        ssize_t n = 0, got = 0;
        while (got < st.st_size && (n = read(fd, text + got, (size_t)(st.st_size - got))) > 0)
            got += n;
        text[got] = 0;
    }
    close(fd);
    return text;
}

static void load(struct table *t)
{
    if (t->read)
        return;
    t->read = true;
    char *text = read_table(t->path);
    for (char *line = text; line && *line;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        t->fields = xrealloc(t->fields, (t->count + 1) * FIELDS * sizeof *t->fields);
        char **fields = t->fields + t->count * FIELDS;
        static char empty[1];
        for (int i = 0; i < FIELDS; i++) {
            char *colon = line ? strchr(line, ':') : NULL;
            fields[i] = line ? line : empty;
            if (colon)
                *colon++ = 0;
            line = colon;
        }
        if (*fields[0] && *fields[0] != '#')
            t->count++;
        line = next;
    }
}

static bool number(const char *text, uint32_t *value)
{
    if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 10)
        return false;
    unsigned long long n = strtoull(text, NULL, 10);
    if (n >= UINT32_MAX) /* -1 means "leave it" to chown(2) and setuid(2) */
        return false;
    *value = (uint32_t)n;
    return true;
}

/* The line with this name, or else with this number in its third field. */
static char **find(struct table *t, const char *key)
{
    load(t);
    for (size_t i = 0; i < t->count; i++)
        if (!strcmp(t->fields[i * FIELDS], key))
            return t->fields + i * FIELDS;
    uint32_t wanted, id;
    if (!number(key, &wanted))
        return NULL;
    for (size_t i = 0; i < t->count; i++)
        if (number(t->fields[i * FIELDS + 2], &id) && id == wanted)
            return t->fields + i * FIELDS;
    return NULL;
}

static bool find_id(struct table *t, const char *key, uint32_t *id)
{
    char **line = find(t, key);
    return line ? number(line[2], id) : number(key, id);
}

static bool lists(const char *members, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = members; *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == length && !strncmp(at, name, length))
            return true;
    return false;
}

static void find_groups(struct user *user)
{
    load(&group);
    for (size_t i = 0; i < group.count; i++) {
        uint32_t gid;
        char **line = group.fields + i * FIELDS;
        if (!number(line[2], &gid) || !lists(line[3], user->name))
            continue;
        user->groups = xrealloc(user->groups, (user->group_count + 1) * sizeof *user->groups);
        user->groups[user->group_count++] = gid;
    }
}

bool find_user(const char *spec, struct user *user)
{
    *user = (struct user){.name = "", .home = "/", .shell = "/bin/sh"};
    if (!*spec)
        return true;
    user->given = true;
    char *name = strdup(spec);
    if (!name)
        return false;
    char *group_part = strchr(name, ':');
    if (group_part)
        *group_part++ = 0;
    char **line = find(&passwd, name);
    if (line) {
        uint32_t gid;
        if (!number(line[2], &user->uid) || !number(line[3], &gid))
            return false;
        user->gid = gid;
        user->name = line[0];
        if (*line[5])
            user->home = line[5];
        if (*line[6])
            user->shell = line[6];
    } else if (!number(name, &user->uid)) {
        return false;
    }
    if (group_part)
        return find_id(&group, group_part, &user->gid);
    if (line)
        find_groups(user);
    return true;
}

bool find_owner(const char *spec, uid_t *uid, gid_t *gid)
{
    *uid = (uid_t)-1;
    *gid = (gid_t)-1;
    char *name = strdup(spec);
    if (!name)
        return false;
    char *group_part = strchr(name, ':');
    if (group_part)
        *group_part++ = 0;
    if (*name && !find_id(&passwd, name, uid))
        return false;
    return !group_part || !*group_part || find_id(&group, group_part, gid);
}

int act_as(const struct user *user)
{
    if (!user->given)
        return 0;
    if (user->uid == geteuid() && user->gid == getegid() && geteuid() != 0)
        return 0; /* an agent without privileges may still be told who it is */
    if (setgroups(user->group_count, user->groups) || setegid(user->gid))
        return -1;
    return seteuid(user->uid);
}

void act_as_agent(void)
{
    (void)!seteuid(getuid());
    (void)!setegid(getgid());
}

int become(const struct user *user)
{
    if (!user->given)
        return 0;
    if (user->uid == geteuid() && user->gid == getegid() && geteuid() != 0)
        return 0;
    if (setgroups(user->group_count, user->groups) || setgid(user->gid))
        return -1;
    return setuid(user->uid);
}

static const char *name_of(struct table *t, uint32_t id)
{
    static struct { struct table *t; uint32_t id; const char *name; } last[2]; /* most files of a tree have one owner */
    size_t slot = t == &group;
    if (last[slot].t == t && last[slot].id == id)
        return last[slot].name;
    load(t);
    const char *name = "";
    uint32_t found;
    for (size_t i = 0; i < t->count && !*name; i++)
        if (number(t->fields[i * FIELDS + 2], &found) && found == id)
            name = t->fields[i * FIELDS];
    last[slot].t = t;
    last[slot].id = id;
    last[slot].name = name;
    return name;
}

const char *user_name(uid_t uid) { return name_of(&passwd, uid); }
const char *group_name(gid_t gid) { return name_of(&group, gid); }
