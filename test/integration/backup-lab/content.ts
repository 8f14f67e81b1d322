import { createCipheriv, createHash } from 'node:crypto'

/** What is written to volumes: pieces that are told by a seed, a quarter of each compressible. */
export const PIECE_BYTES = 64 * 1024
export const RANDOM_BYTES = 48 * 1024

const ZEROES = Buffer.alloc(RANDOM_BYTES)

export function pieceOf(seed: number, piece: number): Buffer {
  const name = `seed ${seed} piece ${piece} `
  const bytes = Buffer.alloc(PIECE_BYTES, name)
  const key = createHash('sha256').update(name).digest()
  const stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16))
  stream.update(ZEROES).copy(bytes)
  return bytes
}

/** A volume of so many pieces; `seeds`: of each piece, or undefined for zeroes. */
export function imageOf(seeds: readonly (number | undefined)[]): Buffer {
  return Buffer.concat(
    seeds.map((seed, piece) =>
      seed === undefined ? Buffer.alloc(PIECE_BYTES) : pieceOf(seed, piece),
    ),
  )
}
