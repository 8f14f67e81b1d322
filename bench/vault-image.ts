import { randomBytes } from 'node:crypto'
import {
  closeSync,
  globSync,
  lstatSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'

/* The image that is backed up: stretches of 1 MiB that are zero (25 %), real files (35 %: programs, libraries and texts of this machine, each once)
 * or random (40 %), mixed; and the changes that are made to it. */

const MIB = 1024 * 1024

export function writeImage(path: string, sizeBytes: number): void {
  const files = realFiles(Math.ceil(sizeBytes * 0.35))
  const fd = openSync(path, 'w')
  for (let at = 0; at < sizeBytes; at += MIB) {
    const kind = (at / MIB) % 20
    const block =
      kind % 4 === 0
        ? Buffer.alloc(MIB)
        : [1, 5, 9, 13, 17, 3, 11].includes(kind)
          ? files()
          : randomBytes(MIB)
    writeSync(fd, block)
  }
  closeSync(fd)
}

/** 1 MiB after the other of concatenated files; random where they are used up. */
function realFiles(bytes: number): () => Buffer {
  // Programs, libraries and texts of the machine: what a system disk is full of.
  const pieces: Buffer[] = []
  let total = 0
  for (const root of [
    '/usr/lib',
    '/usr/bin',
    '/usr/share',
    join(import.meta.dirname, '../node_modules'),
  ]) {
    for (const path of globSync('**/*', { cwd: root }).toSorted()) {
      if (total >= bytes) break
      const facts = lstatSync(join(root, path))
      if (!facts.isFile() || facts.size > 64 * MIB || /\.(gz|png|xz|zst)$/.test(path)) continue
      const content = readFileSync(join(root, path))
      pieces.push(content)
      total += content.length
    }
  }
  const all = Buffer.concat(pieces)
  let at = 0
  return () => {
    const piece = all.subarray(at, (at += MIB))
    return piece.length === MIB ? piece : randomBytes(MIB)
  }
}

/** Writes this share of the image's 4 KiB blocks anew, scattered; answers the ranges. */
export function scatterChanges(path: string, sizeBytes: number, share: number): [number, number][] {
  const fd = openSync(path, 'r+')
  const blocks = sizeBytes / 4096
  const changed = new Set<number>()
  while (changed.size < blocks * share) changed.add(Math.floor(Math.random() * blocks))
  for (const block of changed) writeSync(fd, randomBytes(4096), 0, 4096, block * 4096)
  closeSync(fd)
  return [...changed].toSorted((a, b) => a - b).map((block) => [block * 4096, 4096])
}

/** Writes `bytes` in one piece; answers the range. */
export function changePiece(path: string, offset: number, bytes: number): [number, number][] {
  const fd = openSync(path, 'r+')
  writeSync(fd, randomBytes(bytes), 0, bytes, offset)
  closeSync(fd)
  return [[offset, bytes]]
}

export function sameFiles(one: string, other: string): boolean {
  const [a, b] = [openSync(one, 'r'), openSync(other, 'r')]
  const [left, right] = [Buffer.alloc(4 * MIB), Buffer.alloc(4 * MIB)]
  try {
    for (;;) {
      const [n, m] = [readSync(a, left), readSync(b, right)]
      if (n !== m || !left.subarray(0, n).equals(right.subarray(0, m))) return false
      if (n === 0) return true
    }
  } finally {
    closeSync(a)
    closeSync(b)
  }
}
