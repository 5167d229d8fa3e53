/* Users and groups by the sandbox's own /etc/passwd and /etc/group. */
#ifndef USER_H
#define USER_H

#include <stdbool.h>
#include <sys/types.h>

struct user {
    bool given; /* false: stay what the agent is */
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* supplementary */
    size_t group_count;
    const char *name, *home, *shell; /* of passwd; name is empty, home `/` and shell /bin/sh if it has no entry */
};

/* Resolve "", `name`, `uid`, `name:group` or `uid:gid`. As with Docker, a number without an entry has group 0.
 * False if a name is unknown. */
bool find_user(const char *spec, struct user *user);
/* Resolve `user`, `user:group` or `:group` for chown; what is left out is -1. */
bool find_owner(const char *spec, uid_t *uid, gid_t *gid);
/* Take on the user's rights for file operations, keeping the way back (seteuid(2)): 0, or -1 with errno. */
int act_as(const struct user *user);
/* Become the user for good: 0, or -1 with errno. */
int become(const struct user *user);
/* Go back to the agent's own rights after act_as(). */
void act_as_agent(void);
/* Names for numbers, empty if there is none; good until the process ends. */
const char *user_name(uid_t uid);
const char *group_name(gid_t gid);

#endif
