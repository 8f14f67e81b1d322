import type { FlushMark } from './truth.ts'

/* A request of a client. */

export interface ClientIo {
  readonly kind: 'read' | 'write' | 'flush'
  /** Of one volume. For a flush: all blocks of the volume. */
  readonly blocks: readonly number[]
  readonly fua: boolean
  /** False: refused, or the connection was dropped. */
  readonly done: (ok: boolean) => void
  /** What a reader must at least see, or what a flush covers; taken when the client sent it. */
  readonly mark: FlushMark
}
