/* See salvage.h: a thread that faults while it reads or writes the store leaves a note. */
#include "store/salvage.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static char note_path[512]; /* "": nobody guards */
static _Thread_local const char *guarded;

void salvage_leave_note(void)
{
    const int fd =
        note_path[0] == '\0' ? -1 : open(note_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    if (fd >= 0)
        close(fd);
}

bool salvage_if_damage(int rc)
{
    const bool damage = database_is_damage(rc);

    if (damage)
        salvage_leave_note();
    return damage;
}

static void say(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

static void on_fault(int number)
{
    if (guarded != NULL) {
        say("the store is damaged: ");
        say(number == SIGBUS ? "SIGBUS" : "SIGSEGV");
        say(" while ");
        say(guarded);
        say("; the next start salvages it\n");
        salvage_leave_note();
    }
    signal(number, SIG_DFL);
    raise(number);
}

/* Not in place of a sanitizer's. */
static void catch_signal(int number)
{
    struct sigaction old, action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};

    if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        sigaction(number, &action, NULL);
}

void salvage_guard(const char *directory)
{
    snprintf(note_path, sizeof note_path, "%s/" SALVAGE_NOTE, directory);
    catch_signal(SIGSEGV);
    catch_signal(SIGBUS);
}

void salvage_stage(const char *stage)
{
    guarded = stage;
}
