/* The data file of a new store. */
#ifndef STORE_CREATE_H
#define STORE_CREATE_H

/* Makes the file unless there is one; when this returns 0 it survives a power cut. Answers LMDB's
 * code: 0, an errno, or one of its own; ESTALE where there was one, and it was taken away. */
int create_data_file(const char *directory);

#endif
