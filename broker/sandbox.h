/* What the process may still do once it serves: what it needs, and no more. Two walls, each where
 * the kernel has it:
 *
 *     sandbox_files    Landlock: the data directory to read and write, certificates and the
 *                      system's own files to read, nothing else. Threads inherit it, so it comes
 *                      before the first
 *     sandbox_calls    seccomp: the system calls of a broker. No programs are started, no other
 *                      process is touched, no device is made. For all threads, once everything is
 *                      open
 *
 * and no privilege is ever gained again (no_new_privs). A system call outside the list fails as in
 * a kernel that does not have it; nothing is killed for asking.
 *
 * Whoever takes over the process by a mistake of ours finds neither a shell nor a key ring. Config
 * key: `sandbox`. */
#ifndef BROKER_SANDBOX_H
#define BROKER_SANDBOX_H

#include "base/base.h"

/* Sanitizers look for leaks with a process of their own, and write reports where they like. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANDBOX_FITS = 0 };
#else
enum { SANDBOX_FITS = 1 };
#endif

/* Both answer 0, or -errno: -ENOSYS or -EOPNOTSUPP when the kernel has no such wall, or whatever a
 * filter of the service manager's says in its place. */

/* writable and readable: paths, NULL behind the last; those that do not exist are passed over,
 * those of files stand for the directory that they are in, so that a new file may take their
 * place. */
int sandbox_files(const char *const *writable, const char *const *readable);
int sandbox_calls(void);

#endif
