/**
 * Threads for file I/O that may block. A read that misses the page cache occupies one until the disk has answered, so the four that
 * Node starts by itself would let four reads at a time through to the disk. Small writes and cached reads do not come here.
 */
const THREADS = 32

/** To be called before anything in the process uses the pool; libuv reads the variable once. The environment wins. */
export function sizeThreadPool(): void {
  process.env['UV_THREADPOOL_SIZE'] ??= String(THREADS)
}
