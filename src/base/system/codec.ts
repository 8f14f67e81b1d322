import { createCipheriv, createDecipheriv } from 'node:crypto'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import koffi from 'koffi'
import { assert } from '../assert.ts'

/* Compression and authenticated encryption of many small pieces (tens of KiB), from memory of the caller into memory of the caller.
 *
 * Node's own functions make a context, an object and a result in memory of its own for each piece. For 64 KiB that takes five to ten times as long as the
 * work where zstd finds nothing to do, and four times as long for AES. So this calls the libraries that Node itself is linked with, by the symbols
 * that its program exports, with contexts that are kept. Where they are missing (a Node that was built otherwise) Node's functions do the same:
 * both make and read the same bytes.
 *
 * A codec belongs to one thread. `close` ends it and wipes the last key from its memory. */

export const NONCE_BYTES = 12
export const TAG_BYTES = 16
const KEY_BYTES = 32

export interface Codec {
  /** Which of the two it is. */
  readonly native: boolean
  /** One zstd frame of `source`, from the beginning of `target` on: its length, or undefined when it does not fit. `level`: 1 to 19. */
  compress(source: Buffer, target: Buffer, level: number): number | undefined
  /** The content of a frame: its length, or undefined when it is no whole frame or does not fit. `target` is then undefined as well. */
  decompress(source: Buffer, target: Buffer): number | undefined
  /** AES-256-GCM of `source` into `target`, which has the same length and may be the same memory. `bound` is authenticated besides. */
  seal(key: Buffer, nonce: Buffer, bound: Buffer, source: Buffer, target: Buffer, tag: Buffer): void
  /** The reverse. False: it does not authenticate, and `target` is all zeroes. */
  open(
    key: Buffer,
    nonce: Buffer,
    bound: Buffer,
    source: Buffer,
    target: Buffer,
    tag: Buffer,
  ): boolean
  close(): void
}

/** `native: false` for the one that is made of Node's functions. */
export function openCodec(options: { readonly native?: boolean } = {}): Codec {
  const calls = options.native === false ? undefined : loadCalls()
  return calls === undefined ? nodeCodec : nativeCodec(calls)
}

function check(key: Buffer, nonce: Buffer, source: Buffer, target: Buffer, tag: Buffer): void {
  assert(key.length === KEY_BYTES, 'a key has 32 bytes')
  assert(nonce.length === NONCE_BYTES && tag.length === TAG_BYTES, 'nonce and tag are whole')
  assert(source.length === target.length, 'what is encrypted keeps its length')
}

// ---------------------------------------------------------------- Node's functions

const nodeCodec: Codec = {
  native: false,
  compress(source, target, level) {
    const packed = zstdCompressSync(source, {
      // Told the size, zstd takes tables that fit it: for 64 KiB that halves the time.
      pledgedSrcSize: source.length,
      chunkSize: source.length + 1024,
      params: { [constants.ZSTD_c_compressionLevel]: level },
    })
    return packed.length > target.length ? undefined : packed.copy(target)
  },
  decompress(source, target) {
    try {
      return zstdDecompressSync(source, {
        chunkSize: target.length + 64,
        maxOutputLength: Math.max(1, target.length),
      }).copy(target)
    } catch {
      return undefined // no frame, cut off, or longer than the target
    }
  },
  seal(key, nonce, bound, source, target, tag) {
    check(key, nonce, source, target, tag)
    const cipher = createCipheriv('aes-256-gcm', key, nonce)
    cipher.setAAD(bound)
    cipher.update(source).copy(target)
    cipher.final()
    cipher.getAuthTag().copy(tag)
  },
  open(key, nonce, bound, source, target, tag) {
    check(key, nonce, source, target, tag)
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
    decipher.setAAD(bound)
    decipher.setAuthTag(tag)
    const body = decipher.update(source)
    try {
      decipher.final()
    } catch {
      target.fill(0)
      return false // the tag does not fit
    }
    body.copy(target)
    return true
  },
  close() {},
}

// ---------------------------------------------------------------- the libraries themselves

type Pointer = bigint
type Size = number | bigint
interface Calls {
  compressBytes(level: number): Size
  decompressBytes(): Size
  compressor(memory: Buffer, bytes: number): Pointer | null
  decompressor(memory: Buffer, bytes: number): Pointer | null
  compress(c: Pointer, to: Buffer, room: number, from: Buffer, n: number, level: number): Size
  decompress(d: Pointer, to: Buffer, room: number, from: Buffer, n: number): Size
  newCipher(): Pointer | null
  freeCipher(c: Pointer): void
  aes256gcm(): Pointer
  init(
    c: Pointer,
    cipher: Pointer | null,
    engine: null,
    key: Buffer,
    iv: Buffer,
    enc: number,
  ): number
  update(c: Pointer, to: Buffer | null, length: Buffer, from: Buffer, n: number): number
  final(c: Pointer, to: Buffer, length: Buffer): number
  control(c: Pointer, what: number, n: number, at: Buffer): number
}

const GET_TAG = 0x10
const SET_TAG = 0x11

let loaded: Calls | null | undefined

/** undefined: this Node does not export them all. */
function loadCalls(): Calls | undefined {
  if (loaded !== undefined) return loaded ?? undefined
  try {
    const program = koffi.load(null)
    const call = <F>(declaration: string): F => program.func(declaration) as unknown as F
    loaded = {
      compressBytes: call('size_t ZSTD_estimateCCtxSize(int level)'),
      decompressBytes: call('size_t ZSTD_estimateDCtxSize()'),
      compressor: call('void *ZSTD_initStaticCCtx(void *memory, size_t n)'),
      decompressor: call('void *ZSTD_initStaticDCtx(void *memory, size_t n)'),
      compress: call(
        'size_t ZSTD_compressCCtx(void *c, void *to, size_t room, void *from, size_t n, int level)',
      ),
      decompress: call(
        'size_t ZSTD_decompressDCtx(void *d, void *to, size_t room, void *from, size_t n)',
      ),
      newCipher: call('void *EVP_CIPHER_CTX_new()'),
      freeCipher: call('void EVP_CIPHER_CTX_free(void *c)'),
      aes256gcm: call('void *EVP_aes_256_gcm()'),
      init: call(
        'int EVP_CipherInit_ex(void *c, void *cipher, void *engine, void *key, void *iv, int enc)',
      ),
      update: call('int EVP_CipherUpdate(void *c, void *to, void *length, void *from, int n)'),
      final: call('int EVP_CipherFinal_ex(void *c, void *to, void *length)'),
      control: call('int EVP_CIPHER_CTX_ctrl(void *c, int what, int n, void *at)'),
    }
  } catch {
    loaded = null
  }
  return loaded ?? undefined
}

function nativeCodec(calls: Calls): Codec {
  // zstd's contexts live in memory of JavaScript, which goes with the thread however that ends.
  const compressors = new Map<number, { readonly context: Pointer; readonly memory: Buffer }>()
  let decompressor: { readonly context: Pointer; readonly memory: Buffer } | undefined
  let cipher: Pointer | undefined
  /** Where the library notes how much it has written. */
  const written = Buffer.alloc(8)

  function compressorOf(level: number): Pointer {
    const known = compressors.get(level)
    if (known !== undefined) return known.context
    const memory = Buffer.allocUnsafeSlow(Number(calls.compressBytes(level)))
    const context = calls.compressor(memory, memory.length)
    assert(context !== null, 'the memory is as large as the library asked for')
    compressors.set(level, { context, memory })
    return context
  }

  function theDecompressor(): Pointer {
    if (decompressor !== undefined) return decompressor.context
    const memory = Buffer.allocUnsafeSlow(Number(calls.decompressBytes()))
    const context = calls.decompressor(memory, memory.length)
    assert(context !== null, 'the memory is as large as the library asked for')
    decompressor = { context, memory }
    return context
  }

  /** With key and nonce set, and what is authenticated besides taken in. */
  function cipherFor(key: Buffer, nonce: Buffer, bound: Buffer, enc: 0 | 1): Pointer {
    const first = cipher === undefined
    cipher ??= calls.newCipher() ?? undefined
    assert(cipher !== undefined, 'there is memory for a cipher')
    const kind = first ? calls.aes256gcm() : null
    done(calls.init(cipher, kind, null, key, nonce, enc))
    done(calls.update(cipher, null, written, bound, bound.length))
    return cipher
  }

  return {
    native: true,
    compress(source, target, level) {
      const context = compressorOf(level)
      return sizeOf(
        calls.compress(context, target, target.length, source, source.length, level),
        target,
      )
    },
    decompress(source, target) {
      const context = theDecompressor()
      return sizeOf(calls.decompress(context, target, target.length, source, source.length), target)
    },
    seal(key, nonce, bound, source, target, tag) {
      check(key, nonce, source, target, tag)
      const context = cipherFor(key, nonce, bound, 1)
      done(calls.update(context, target, written, source, source.length))
      assert(written.readInt32LE(0) === source.length, 'GCM keeps no bytes back')
      done(calls.final(context, written, written))
      done(calls.control(context, GET_TAG, TAG_BYTES, tag))
    },
    open(key, nonce, bound, source, target, tag) {
      check(key, nonce, source, target, tag)
      const context = cipherFor(key, nonce, bound, 0)
      done(calls.control(context, SET_TAG, TAG_BYTES, tag))
      done(calls.update(context, target, written, source, source.length))
      if (calls.final(context, written, written) === 1) return true
      target.fill(0)
      return false
    },
    close() {
      if (cipher !== undefined) calls.freeCipher(cipher)
      cipher = undefined
      compressors.clear()
      decompressor = undefined
    },
  }
}

function done(result: number): void {
  assert(result === 1, 'the library has carried out what it was asked for')
}

/** zstd tells errors as sizes just below 2^64, which arrive as a bigint. */
function sizeOf(result: Size, target: Buffer): number | undefined {
  const bytes = Number(result)
  return bytes > target.length ? undefined : bytes
}
