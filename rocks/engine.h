/* The C side of package rocks: calls that fold several functions of RocksDB's C
 * interface into one crossing from Go, which costs about 25 ns each.
 *
 * Every pointer to Go memory is used during the call only. What a call leaves
 * behind in C memory is an rk_iterator, the pinned value of rk_get or the block
 * of rk_multi_get, each with the call that frees it. */
#ifndef VARVE_ROCKS_ENGINE_H
#define VARVE_ROCKS_ENGINE_H

#include <rocksdb/c.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Addresses of C memory that stay in Go memory beyond a call are integers here:
 * Go's collector takes a pointer for its own once C has freed the address and Go
 * has mapped it.
 *
 * A position of an iterator. key and value are memory of RocksDB and die with
 * the next move. */
typedef struct {
  uintptr_t key;
  size_t key_len;
  uintptr_t value;
  size_t value_len;
  int valid;
} rk_position;

/* A value found, or not. */
typedef struct {
  uintptr_t data;
  size_t len;
  int found;
} rk_value;

/* An iterator with the options and the bounds it points into. */
typedef struct {
  rocksdb_iterator_t* it;
  rocksdb_readoptions_t* options;
  char* bounds;
} rk_iterator;

/* Properties of the whole database and sums over its families. */
typedef struct {
  uint64_t background_errors;
  uint64_t write_stopped;
  uint64_t delayed_write_rate;
  uint64_t running_flushes;
  uint64_t running_compactions;
  uint64_t pending_compaction_bytes;
  uint64_t memtable_bytes;
  uint64_t table_reader_bytes;
} rk_state;

#define RK_LEVELS_MAX 16

/* Files of one family by level. */
typedef struct {
  uint64_t bytes[RK_LEVELS_MAX];
  uint64_t files[RK_LEVELS_MAX];
  int levels;
  uint64_t pending_compaction_bytes;
  uint64_t memtable_bytes;
} rk_family_stats;

char* rk_write(rocksdb_t* db, const rocksdb_writeoptions_t* options,
               const char* rep, size_t len);

char* rk_get(rocksdb_t* db, const rocksdb_readoptions_t* options,
             rocksdb_column_family_handle_t* family, const char* key,
             size_t key_len, char* dst, size_t cap, rk_value* out,
             rocksdb_pinnableslice_t** pinned);

char* rk_multi_get(rocksdb_t* db, const rocksdb_readoptions_t* options,
                   rocksdb_column_family_handle_t* family, size_t n,
                   const char* keys, const uint32_t* key_lens, rk_value* out,
                   void** block);
void rk_multi_get_free(void* block, size_t n);

void rk_iterator_create(rk_iterator* out, rocksdb_t* db,
                        rocksdb_column_family_handle_t* family,
                        const rocksdb_snapshot_t* snapshot, const char* lower,
                        size_t lower_len, const char* upper, size_t upper_len,
                        size_t readahead, int no_fill_cache);
void rk_iterator_destroy(rk_iterator* it);

void rk_first(rocksdb_iterator_t* it, rk_position* out);
void rk_last(rocksdb_iterator_t* it, rk_position* out);
void rk_next(rocksdb_iterator_t* it, rk_position* out);
void rk_prev(rocksdb_iterator_t* it, rk_position* out);
void rk_seek(rocksdb_iterator_t* it, const char* key, size_t len,
             rk_position* out);
void rk_seek_for_prev(rocksdb_iterator_t* it, const char* key, size_t len,
                      rk_position* out);

char* rk_file_put(rocksdb_sstfilewriter_t* writer, const char* key,
                  size_t key_len, const char* value, size_t value_len);

void rk_read_state(rocksdb_t* db, rocksdb_column_family_handle_t** families,
                   size_t n, rk_state* out);
void rk_read_family_stats(rocksdb_t* db, rocksdb_column_family_handle_t* family,
                          rk_family_stats* out);

void rk_approximate_size(rocksdb_t* db, rocksdb_column_family_handle_t* family,
                         const char* lower, size_t lower_len, const char* upper,
                         size_t upper_len, uint64_t* size, char** status);

#endif
