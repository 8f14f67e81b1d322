import { createHash } from 'node:crypto'

/** What is written to volumes: pieces that are told by a seed, half of each compressible. */
export const PIECE_BYTES = 64 * 1024

export function pieceOf(seed: number, piece: number): Buffer {
  const bytes = Buffer.alloc(PIECE_BYTES, `seed ${seed} piece ${piece} `)
  for (let at = 0; at < PIECE_BYTES / 2; at += 32) {
    createHash('sha256').update(`${seed} ${piece} ${at}`).digest().copy(bytes, at)
  }
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
