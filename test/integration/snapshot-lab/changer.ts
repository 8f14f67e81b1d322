/**
 * A process that changes volumes, and takes, rolls back, seals, clones and deletes snapshots of them, until it is killed. Says on standard output, a JSON line
 * each, what it is about to do and what is done:  changer.ts DIRECTORY SEED
 */
import { createHash } from 'node:crypto'
import { writeSync } from 'node:fs'
import type { Volume } from '#agent/volumes/volume.ts'
import { guardedWrite, guardedZero } from '#agent/snapshots/snapshots.contract.ts'
import { openBoth } from '#agent/snapshots/store/snapshot-store.contract.ts'

export const VOLUMES = ['v1', 'v2'] as const
export const SIZE = 24 * 64 * 1024 + 512

export interface Said {
  readonly kind: 'begin' | 'done'
  readonly what: 'take' | 'rollback' | 'delete' | 'clone' | 'seal'
  readonly id: string
  /** Digests of both volumes at the moment of the snapshot. */
  readonly digests?: readonly string[]
}

const say = (said: Said): void => void writeSync(1, `${JSON.stringify(said)}\n`)

export function digestOf(volume: Volume): string {
  const bytes = Buffer.alloc(SIZE)
  volume.readSync(bytes, 0, SIZE, 0)
  return createHash('sha256').update(bytes).digest('hex')
}

async function main(directory: string, seed: number): Promise<void> {
  let state = seed
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const { volumes, snapshots } = await openBoth(directory)
  for (const id of VOLUMES) await volumes.create(id, SIZE, { mode: 'standalone' })
  const open = await Promise.all(VOLUMES.map((id) => volumes.open(id)))

  const write = async (): Promise<void> => {
    const volume = open[random(open.length)] as Volume
    const offset = random(SIZE - 512)
    const length = Math.min(1 + random(random(3) === 0 ? 200_000 : 8192), SIZE - offset)
    if (random(5) === 0) await guardedZero(volume, offset, length, true)
    else await guardedWrite(volume, offset, Buffer.alloc(length, 1 + random(255)))
  }
  let paused: Promise<void> | undefined
  let stopped = 0
  const writer = async (): Promise<never> => {
    for (;;) {
      if (paused !== undefined) {
        stopped++
        await paused
        stopped--
      }
      await write()
      if (random(4) === 0) await new Promise((resolve) => setImmediate(resolve))
    }
  }
  for (let i = 0; i < 3; i++) void writer()

  const withoutWriters = async (work: () => Promise<void>): Promise<void> => {
    let go: () => void = () => undefined
    paused = new Promise((resolve) => (go = resolve))
    while (stopped < 3) await new Promise((resolve) => setImmediate(resolve))
    await work()
    paused = undefined
    go()
  }

  for (let n = 0; ; n++) {
    const whole = snapshots.list().filter((one) => one.state === 'ready')
    const { id } = whole[random(whole.length)] ?? { id: undefined }
    const dice = random(10)
    if (id === undefined || (dice < 5 && whole.length < 5)) {
      const fresh = `s${seed}-${n}`
      let digests: string[] = []
      say({ kind: 'begin', what: 'take', id: fresh })
      const atMoment = () => (digests = open.map(digestOf))
      await snapshots.take({ id: fresh, purpose: 'user', volumes: VOLUMES, atMoment })
      say({ kind: 'done', what: 'take', id: fresh, digests })
    } else if (dice < 7) {
      say({ kind: 'begin', what: 'rollback', id })
      await withoutWriters(() => snapshots.rollback(id))
      say({ kind: 'done', what: 'rollback', id })
    } else if (dice === 7) {
      const clone = `c${seed}-${n}`
      await snapshots.clone(id, 'v1', clone)
      say({ kind: 'done', what: 'clone', id: `${id} ${clone}` })
    } else if (dice === 8) {
      say({ kind: 'begin', what: 'seal', id })
      await snapshots.seal(id, { v1: [{ offset: 0, length: SIZE }] })
      say({ kind: 'done', what: 'seal', id })
    } else {
      say({ kind: 'begin', what: 'delete', id })
      await snapshots.delete(id)
      say({ kind: 'done', what: 'delete', id })
    }
    for (let writes = random(20); writes > 0; writes--) {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}

const [, script, directory, seed] = process.argv
if (script?.endsWith('changer.ts') === true && directory !== undefined) {
  await main(directory, Number(seed))
}
