import { isFault } from '#base/fault.ts'
import { OBJECT_MISSING } from './faults.ts'

/* Where a vault lies. The interface is the smallest that a directory and S3 both keep honestly: whole objects, no rename, no append.
 * What the rest of the vault relies on:
 *
 *   - put settles when the object is durable: it survives power loss from then on. Before that it is whole or absent, never partial.
 *   - put with ifAbsent has exactly one winner among any number of callers, on any number of hosts.
 *   - list sees every object whose put had settled, and none whose delete had, before the list began.
 *   - modifiedMs of different objects comes from one clock, the store's own.
 */

/** Path-like: letters, digits, '.', '-', '_' and '/'. */
export type ObjectKey = string

export interface ObjectStat {
  readonly bytes: number
  /** Time of the last put by the store's clock, in ms since 1970; S3 gives whole seconds. */
  readonly modifiedMs: number
}

export interface ListedObject extends ObjectStat {
  readonly key: ObjectKey
}

export interface PutOptions {
  /** Refuse, by answering false, when the key exists. */
  readonly ifAbsent?: boolean
}

/** An object that is being put in parts, or was by somebody who is gone. */
export interface Upload {
  readonly key: ObjectKey
  /** By the store's clock, in ms since 1970. */
  readonly startedMs: number
  /** Whoever is still at it fails with its put. */
  abort(): Promise<void>
}

export interface ObjectStore {
  /** For messages: a path or an address without secrets. */
  readonly name: string
  /** Stores a whole object from one or several pieces. False: ifAbsent, and somebody else has put it. The caller may reuse the
   *  bytes when it settles, not before. */
  put(
    key: ObjectKey,
    body: Uint8Array | readonly Uint8Array[],
    options?: PutOptions,
  ): Promise<boolean>
  /** All of an object, or exactly `range`. The buffer is a part of `into`, when there is one that the store can use, or owns its memory.
   *  Throws OBJECT_MISSING; a range beyond the end VAULT_DAMAGED. */
  get(
    key: ObjectKey,
    range?: { readonly offset: number; readonly length: number },
    into?: Buffer,
  ): Promise<Buffer>
  stat(key: ObjectKey): Promise<ObjectStat | undefined>
  /** In no order. `prefix` ends with '/' or is empty. */
  list(prefix: string): AsyncIterable<ListedObject>
  /** An object that is absent already is fine. Throws OBJECT_RETAINED, OBJECT_HELD. */
  delete(key: ObjectKey): Promise<void>
  /** Where the store itself can keep an object from being deleted or overwritten until a time, whoever asks. */
  readonly retain?: (key: ObjectKey, untilMs: number) => Promise<void>
  /** Where objects are put in parts: those that are not whole. */
  readonly uploads?: () => Promise<readonly Upload[]>
  close(): void
}

/** undefined: what is read is not in the store. */
export async function ifPresent<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading
  } catch (error) {
    if (isFault(error, OBJECT_MISSING)) return undefined
    throw error
  }
}

const KEY = /^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/
/** Also keeps `..` and hidden names out of directories. */
export const isObjectKey = (key: string): boolean => KEY.test(key) && !/(^|\/)\./.test(key)

export const totalBytes = (pieces: readonly Uint8Array[]): number =>
  pieces.reduce((sum, piece) => sum + piece.byteLength, 0)

export const asPieces = (body: Uint8Array | readonly Uint8Array[]): readonly Uint8Array[] =>
  body instanceof Uint8Array ? [body] : body
