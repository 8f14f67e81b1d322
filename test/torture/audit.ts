import { open } from 'node:fs/promises'
import { systemFileRanges } from '#base/system/libc.ts'
import { connectNbd } from '#client/nbd/client.ts'
import type { Lab, Site } from './lab/lab.ts'
import { RANGES, SLOTS } from './load/layout.ts'
import type { Judgement, Op } from './load/ledger.ts'
import { BLOCK_BYTES, type Found, readStamp } from './load/stamp.ts'

/* Looks at what is there: through a site's own NBD exports, as any client, and in the files of both sites. */

/** By volume and slot. */
export type Scan = readonly (readonly Found[])[]

export const at =
  (scan: Scan) =>
  (volume: number, slot: number): Found =>
    scan[volume]?.[slot] ?? 'damaged'

/** Reads every block of the load through the exports of one site. */
export async function scanExports(
  socket: string,
  pairs: readonly string[],
  run: Buffer,
): Promise<Scan> {
  return await Promise.all(
    pairs.map(async (exportName) => {
      const client = await connectNbd({ unix: socket }, { exportName })
      try {
        return await scan((offset, bytes) => client.read(offset, bytes), run)
      } finally {
        client.destroy()
      }
    }),
  )
}

async function scan(
  read: (offset: number, bytes: number) => Promise<Buffer>,
  run: Buffer,
): Promise<Found[]> {
  const found: Found[] = Array.from({ length: SLOTS }, () => 'damaged')
  for (const range of RANGES) {
    const data = await read(range.offset, range.bytes)
    for (let index = 0; index < range.slots; index++) {
      const block = data.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)
      found[range.slot + index] = readStamp(block, run)
    }
  }
  return found
}

/** Differences between the files of a pair in the blocks of the load. Empty: none. Both sites must be quiet and in step. */
export async function compareAreas(
  lab: Lab,
  volumes: Readonly<Record<Site, string>>,
): Promise<string[]> {
  const [one, two] = await Promise.all([
    open(lab.volumeFile('az1', volumes.az1)),
    open(lab.volumeFile('az2', volumes.az2)),
  ])
  try {
    const differences: string[] = []
    for (const { offset, bytes, slot } of RANGES) {
      const [a, b] = await Promise.all(
        [one, two].map(
          async (file) => (await file.read(Buffer.alloc(bytes), 0, bytes, offset)).buffer,
        ),
      )
      if (a === undefined || b === undefined || a.equals(b)) continue
      for (let index = 0; index * BLOCK_BYTES < bytes; index++) {
        const from = index * BLOCK_BYTES
        if (!a.subarray(from, from + BLOCK_BYTES).equals(b.subarray(from, from + BLOCK_BYTES))) {
          differences.push(`slot ${slot + index} (byte ${offset + from})`)
        }
      }
    }
    return differences
  } finally {
    await Promise.all([one.close(), two.close()])
  }
}

const STEP_BYTES = 4 * 1024 * 1024

/** Compares the whole files of a pair. A range that is a hole in both is equal. Undefined: they are identical. */
export async function compareFiles(
  lab: Lab,
  volumes: Readonly<Record<Site, string>>,
): Promise<string | undefined> {
  const one = await open(lab.volumeFile('az1', volumes.az1))
  const two = await open(lab.volumeFile('az2', volumes.az2))
  const nextData = (at: number) =>
    Math.min(...[one, two].map(({ fd }) => ranges.seekData(fd, at) ?? Number.POSITIVE_INFINITY))
  try {
    const [sizeBytes, otherBytes] = [(await one.stat()).size, (await two.stat()).size]
    if (sizeBytes !== otherBytes) return `${sizeBytes} and ${otherBytes} bytes`
    const a = Buffer.alloc(STEP_BYTES)
    const b = Buffer.alloc(STEP_BYTES)
    for (let at = nextData(0); at < sizeBytes; at = nextData(at)) {
      const got = await one.read(a, 0, STEP_BYTES, at)
      await two.read(b, 0, got.bytesRead, at)
      const wrong = firstDifference(a.subarray(0, got.bytesRead), b.subarray(0, got.bytesRead))
      if (wrong !== undefined) return `first difference at byte ${at + wrong}`
      at += got.bytesRead
    }
    return undefined
  } finally {
    await Promise.all([one.close(), two.close()])
  }
}

const ranges = systemFileRanges()

function firstDifference(a: Buffer, b: Buffer): number | undefined {
  if (a.equals(b)) return undefined
  return a.findIndex((byte, index) => byte !== b[index])
}

export function tellJudgement({ lost, disorder, damaged }: Judgement): string {
  const name = (op: Op) =>
    `${op.kind} ${op.sequence} (volume ${op.volume} slot ${op.slot}+${op.slots})`
  return [
    lost.length === 0
      ? ''
      : `${lost.length} acknowledged operations are lost, e.g. ${lost.slice(0, 3).map(name).join(', ')}`,
    disorder.length === 0 ? '' : `${disorder.length} of them out of order`,
    damaged.length === 0
      ? ''
      : `${damaged.length} blocks hold what does not belong there, e.g. ${damaged
          .slice(0, 3)
          .map(
            ({ volume, slot, found }) =>
              `volume ${volume} slot ${slot}: ${typeof found === 'string' ? found : `operation ${found.sequence} of volume ${found.volume} slot ${found.slot}`}`,
          )
          .join(', ')}`,
  ]
    .filter((text) => text !== '')
    .join('; ')
}
