/** The few things that a before-image store does to a disk: an argument, so that a test can cut the power between any two of them. */
export interface StoreFile {
  /** All of it, or a system error; then the range is undefined. */
  write(buf: Uint8Array, offset: number): Promise<void>
  /** Bytes read; less than asked for only at the end of the file. */
  read(buf: Uint8Array, offset: number): Promise<number>
  /** What was written before this call survives power loss when it resolves. */
  datasync(): Promise<void>
  size(): Promise<number>
  truncate(sizeBytes: number): Promise<void>
  /** Gives the range back and reads as zeroes then; nothing happens where the file system cannot. */
  punch(offset: number, length: number): Promise<void>
  close(): Promise<void>
}

export interface StoreDisk {
  /** An existing file for reading and writing, or with `create` a new, empty one. */
  open(path: string, create: 'create' | 'existing'): Promise<StoreFile>
}
