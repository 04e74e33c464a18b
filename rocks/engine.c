#include "engine.h"

#include <string.h>

char* rk_write(rocksdb_t* db, const rocksdb_writeoptions_t* options,
               const char* rep, size_t len) {
  char* err = NULL;
  rocksdb_writebatch_t* batch = rocksdb_writebatch_create_from(rep, len);
  rocksdb_write(db, options, batch, &err);
  rocksdb_writebatch_destroy(batch);
  return err;
}

/* A value that fits into dst is copied there and pinned stays NULL; a longer one
 * stays pinned, so that the caller can make room without a second look-up. */
char* rk_get(rocksdb_t* db, const rocksdb_readoptions_t* options,
             rocksdb_column_family_handle_t* family, const char* key,
             size_t key_len, char* dst, size_t cap, rk_value* out,
             rocksdb_pinnableslice_t** pinned) {
  char* err = NULL;
  *pinned = NULL;
  memset(out, 0, sizeof *out);
  rocksdb_pinnableslice_t* slice =
      rocksdb_get_pinned_cf(db, options, family, key, key_len, &err);
  if (err != NULL || slice == NULL) {
    return err;
  }
  out->found = 1;
  const char* data = rocksdb_pinnableslice_value(slice, &out->len);
  if (out->len <= cap) {
    if (out->len > 0) memcpy(dst, data, out->len);
    rocksdb_pinnableslice_destroy(slice);
  } else {
    out->data = (uintptr_t)data;
    *pinned = slice;
  }
  return NULL;
}

/* The block holds the values first, so that rk_multi_get_free needs no more than
 * its address. */
char* rk_multi_get(rocksdb_t* db, const rocksdb_readoptions_t* options,
                   rocksdb_column_family_handle_t* family, size_t n,
                   const char* keys, const uint32_t* key_lens, rk_value* out,
                   void** block) {
  const size_t entry = sizeof(rocksdb_pinnableslice_t*) + 2 * sizeof(char*) +
                       sizeof(size_t);
  *block = NULL;
  char* memory = malloc(n * entry);
  if (memory == NULL) return strdup("Operation aborted: out of memory");
  rocksdb_pinnableslice_t** values = (rocksdb_pinnableslice_t**)memory;
  char** errs = (char**)(values + n);
  const char** key_list = (const char**)(errs + n);
  size_t* len_list = (size_t*)(key_list + n);
  for (size_t i = 0; i < n; i++) {
    key_list[i] = keys;
    len_list[i] = key_lens[i];
    keys += key_lens[i];
  }
  rocksdb_batched_multi_get_cf(db, options, family, n, key_list, len_list,
                               values, errs, 0);
  char* err = NULL;
  for (size_t i = 0; i < n; i++) {
    memset(&out[i], 0, sizeof out[i]);
    if (values[i] != NULL) {
      out[i].found = 1;
      out[i].data =
          (uintptr_t)rocksdb_pinnableslice_value(values[i], &out[i].len);
    }
    if (errs[i] == NULL) continue;
    if (err == NULL) {
      err = errs[i];
    } else {
      rocksdb_free(errs[i]);
    }
  }
  if (err != NULL) {
    rk_multi_get_free(memory, n);
    return err;
  }
  *block = memory;
  return NULL;
}

void rk_multi_get_free(void* block, size_t n) {
  rocksdb_pinnableslice_t** values = block;
  for (size_t i = 0; i < n; i++) {
    if (values[i] != NULL) rocksdb_pinnableslice_destroy(values[i]);
  }
  free(block);
}

/* RocksDB keeps pointers to the bounds inside the read options and to the read
 * options inside the iterator: all three live and die together. */
void rk_iterator_create(rk_iterator* out, rocksdb_t* db,
                        rocksdb_column_family_handle_t* family,
                        const rocksdb_snapshot_t* snapshot, const char* lower,
                        size_t lower_len, const char* upper, size_t upper_len,
                        size_t readahead, int no_fill_cache) {
  out->options = rocksdb_readoptions_create();
  out->bounds = NULL;
  if (lower_len + upper_len > 0) {
    out->bounds = malloc(lower_len + upper_len);
    if (out->bounds == NULL) abort();
  }
  if (lower_len > 0) {
    memcpy(out->bounds, lower, lower_len);
    rocksdb_readoptions_set_iterate_lower_bound(out->options, out->bounds,
                                                lower_len);
  }
  if (upper_len > 0) {
    memcpy(out->bounds + lower_len, upper, upper_len);
    rocksdb_readoptions_set_iterate_upper_bound(
        out->options, out->bounds + lower_len, upper_len);
  }
  if (snapshot != NULL) {
    rocksdb_readoptions_set_snapshot(out->options, snapshot);
  }
  if (readahead > 0) {
    rocksdb_readoptions_set_readahead_size(out->options, readahead);
  }
  rocksdb_readoptions_set_fill_cache(out->options, !no_fill_cache);
  out->it = rocksdb_create_iterator_cf(db, out->options, family);
}

void rk_iterator_destroy(rk_iterator* it) {
  rocksdb_iter_destroy(it->it);
  rocksdb_readoptions_destroy(it->options);
  free(it->bounds);
  memset(it, 0, sizeof *it);
}

static void read_position(rocksdb_iterator_t* it, rk_position* out) {
  out->valid = rocksdb_iter_valid(it);
  if (out->valid) {
    out->key = (uintptr_t)rocksdb_iter_key(it, &out->key_len);
    out->value = (uintptr_t)rocksdb_iter_value(it, &out->value_len);
  }
}

void rk_first(rocksdb_iterator_t* it, rk_position* out) {
  rocksdb_iter_seek_to_first(it);
  read_position(it, out);
}

void rk_last(rocksdb_iterator_t* it, rk_position* out) {
  rocksdb_iter_seek_to_last(it);
  read_position(it, out);
}

void rk_next(rocksdb_iterator_t* it, rk_position* out) {
  rocksdb_iter_next(it);
  read_position(it, out);
}

void rk_prev(rocksdb_iterator_t* it, rk_position* out) {
  rocksdb_iter_prev(it);
  read_position(it, out);
}

void rk_seek(rocksdb_iterator_t* it, const char* key, size_t len,
             rk_position* out) {
  rocksdb_iter_seek(it, key, len);
  read_position(it, out);
}

void rk_seek_for_prev(rocksdb_iterator_t* it, const char* key, size_t len,
                      rk_position* out) {
  rocksdb_iter_seek_for_prev(it, key, len);
  read_position(it, out);
}

char* rk_file_put(rocksdb_sstfilewriter_t* writer, const char* key,
                  size_t key_len, const char* value, size_t value_len) {
  char* err = NULL;
  rocksdb_sstfilewriter_put(writer, key, key_len, value, value_len, &err);
  return err;
}

static uint64_t db_property(rocksdb_t* db, const char* name) {
  uint64_t value = 0;
  return rocksdb_property_int(db, name, &value) == 0 ? value : 0;
}

static uint64_t family_property(rocksdb_t* db,
                                rocksdb_column_family_handle_t* family,
                                const char* name) {
  uint64_t value = 0;
  return rocksdb_property_int_cf(db, family, name, &value) == 0 ? value : 0;
}

void rk_read_state(rocksdb_t* db, rocksdb_column_family_handle_t** families,
                   size_t n, rk_state* out) {
  memset(out, 0, sizeof *out);
  out->background_errors = db_property(db, "rocksdb.background-errors");
  out->write_stopped = db_property(db, "rocksdb.is-write-stopped");
  out->delayed_write_rate =
      db_property(db, "rocksdb.actual-delayed-write-rate");
  out->running_flushes = db_property(db, "rocksdb.num-running-flushes");
  out->running_compactions = db_property(db, "rocksdb.num-running-compactions");
  for (size_t i = 0; i < n; i++) {
    if (families[i] == NULL) continue;
    out->pending_compaction_bytes += family_property(
        db, families[i], "rocksdb.estimate-pending-compaction-bytes");
    out->memtable_bytes +=
        family_property(db, families[i], "rocksdb.cur-size-all-mem-tables");
    out->table_reader_bytes +=
        family_property(db, families[i], "rocksdb.estimate-table-readers-mem");
  }
}

void rk_read_family_stats(rocksdb_t* db, rocksdb_column_family_handle_t* family,
                          rk_family_stats* out) {
  memset(out, 0, sizeof *out);
  out->pending_compaction_bytes =
      family_property(db, family, "rocksdb.estimate-pending-compaction-bytes");
  out->memtable_bytes =
      family_property(db, family, "rocksdb.cur-size-all-mem-tables");
  rocksdb_column_family_metadata_t* meta =
      rocksdb_get_column_family_metadata_cf(db, family);
  size_t levels = rocksdb_column_family_metadata_get_level_count(meta);
  if (levels > RK_LEVELS_MAX) levels = RK_LEVELS_MAX;
  out->levels = (int)levels;
  for (size_t i = 0; i < levels; i++) {
    rocksdb_level_metadata_t* level =
        rocksdb_column_family_metadata_get_level_metadata(meta, i);
    out->bytes[i] = rocksdb_level_metadata_get_size(level);
    out->files[i] = rocksdb_level_metadata_get_file_count(level);
    rocksdb_level_metadata_destroy(level);
  }
  rocksdb_column_family_metadata_destroy(meta);
}

void rk_approximate_size(rocksdb_t* db, rocksdb_column_family_handle_t* family,
                         const char* lower, size_t lower_len, const char* upper,
                         size_t upper_len, uint64_t* size, char** status) {
  rocksdb_approximate_sizes_cf(db, family, 1, &lower, &lower_len, &upper,
                               &upper_len, size, status);
}
