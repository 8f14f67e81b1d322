/* Every bound of the vault in one place. Formats that depend on a number say so; the others may change between releases. */

/** Blocks of a volume that become one chunk. A scattered change of 4 KiB costs one such block; smaller blocks cost index. */
export const BLOCK_BYTES_DEFAULT = 64 * 1024
export const BLOCK_BYTES_MIN = 4 * 1024
/** Offsets and lengths inside a pack have 32 and 24 bits. */
export const BLOCK_BYTES_MAX = 8 * 1024 * 1024

/** Entries of a tree node. Part of the format: the shape of a tree follows from it and the size of the volume. */
export const NODE_ENTRIES = 1024

/** A pack is closed when it has this many bytes ... */
export const PACK_BYTES = 16 * 1024 * 1024
/** ... or this many records; slots have 16 bits. */
export const PACK_RECORDS_MAX = 8192
/** Packs on their way to the store at a time; the next one waits. They bound memory and keep the disk busy. */
export const PACKS_IN_FLIGHT = 3

/** Bytes of blocks that travel to a thread at a time. */
export const BATCH_BYTES = 4 * 1024 * 1024
/** Batches per thread: one being worked on, one waiting, one being filled. */
export const BATCHES_PER_THREAD = 3
export const THREADS_MAX = 4
/** Who has more than this to do starts the threads at once. */
export const EAGER_BYTES = 64 * 1024 * 1024
/** So many batches the main thread does itself before it starts threads, which takes it about as long as this. */
export const INLINE_BATCHES = 3

/** Threads, and memory that they work in, rest for so long for whoever comes next. */
export const REST_MS = 60_000
/** Threads that were shown a larger table of known chunks end instead: they would keep it. */
export const KNOWN_AT_REST_BYTES_MAX = 4 * 1024 * 1024

/** Pieces of a file from this size on are written and read past the page cache, when they begin with a page of memory. */
export const DIRECT_PIECE_MIN = 1024 * 1024

/** Slots of the table of known chunks, 32 bytes each, at most; filled to three quarters. Beyond it chunks are stored again
 *  instead of found, so it bounds memory and never correctness. 4 Mi slots: 3.1 million chunks, 192 GiB of unlike blocks. */
export const KNOWN_SLOTS_MAX = 4 * 1024 * 1024

/** Records of an index object: it is put when a backup has made so many, so that memory stays bounded and a killed one has not worked in vain; smaller ones are joined. */
export const RECORDS_PER_INDEX = 64 * 1024

/** How often a session renews its lease, and when another one may take it for dead. */
export const LEASE_RENEW_MS = 60_000
export const LEASE_EXPIRY_MS = 30 * 60_000

/** Packs younger than this are left alone by the collector, whoever wrote them. */
export const COLLECT_GRACE_MS = 60 * 60_000
/** A pack of which less than this share is in use is rewritten. */
export const COLLECT_USED_MIN = 0.5

/** Nodes kept by a reader: 59 KiB each. */
export const NODE_CACHE = 64
/** Adjacent records are fetched together up to this many bytes, over gaps of at most the second number. */
export const FETCH_BYTES_MAX = 4 * 1024 * 1024
export const FETCH_GAP_MAX = 64 * 1024
/** Room for gaps and the pages around them, where the records of a batch are fetched to; what needs more is fetched elsewhere. */
export const FETCH_ROOM_BYTES = 256 * 1024
/** Largest metadata object read as a whole: a guard against damaged sizes. */
export const OBJECT_BYTES_MAX = 1024 * 1024 * 1024
