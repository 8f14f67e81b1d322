import { type Clock, sleep } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { SNAPSHOT_UNKNOWN } from '#agent/snapshots/faults.ts'
import type { Snapshots } from '#agent/snapshots/snapshots.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import type { CommandRequest } from '#wire/site/commands.ts'
import type { CloneInfo } from '#wire/site/snapshots.ts'
import type { VolumeCommands } from './volume-commands.ts'

/* Volumes made from snapshots. By reflink it takes a moment; a copy takes as long as its bytes, and whoever asked asks again. A volume
 * that exists is whole: one whose making was cut off does not exist, so nothing has to be remembered across a restart. */

/** How long one command waits for the clone before it tells how far it is, ms. */
const WAIT_MS = 2_000

export interface CloneCommands {
  clone(request: CommandRequest<'snapshot.clone'>): Promise<CloneInfo>
  /** Ends the copies under way; they leave nothing. */
  close(): Promise<void>
}

export interface CloneCommandsParts {
  readonly snapshots: Snapshots
  readonly volumes: VolumeStore
  readonly plain: Pick<VolumeCommands, 'serve'>
  readonly clock: Clock
}

interface Running {
  copiedBytes: number
  totalBytes: number
  /** Settles when it has ended; `failure` says how. */
  readonly ended: Promise<void>
  failure: Error | undefined
  done: boolean
  /** Ends the waiting. */
  readonly hurry: AbortController
}

export function cloneCommands({
  snapshots,
  volumes,
  plain,
  clock,
}: CloneCommandsParts): CloneCommands {
  const running = new Map<string, Running>()
  const stop = new AbortController()

  function begin({ snapshot, volume, new_volume, owner }: CommandRequest<'snapshot.clone'>) {
    const one: Running = {
      copiedBytes: 0,
      totalBytes: 0,
      failure: undefined,
      done: false,
      ended: snapshots
        .clone(snapshot, volume, new_volume, {
          owner,
          signal: stop.signal,
          gentle: clock,
          onProgress: ({ copiedBytes, totalBytes }) =>
            Object.assign(one, { copiedBytes, totalBytes }),
        })
        .catch((error: unknown) => {
          one.failure = error instanceof Error ? error : new Error(String(error))
        })
        .finally(() => {
          one.done = true
          one.hurry.abort()
        }),
      hurry: new AbortController(),
    }
    running.set(new_volume, one)
    return one
  }

  return {
    async clone(request) {
      const { new_volume, snapshot, volume } = request
      if (volumes.record(new_volume) === undefined && !running.has(new_volume)) {
        const known = snapshots.show(snapshot)?.volumes.some((one) => one.volume === volume)
        if (known !== true) throw new Fault(SNAPSHOT_UNKNOWN, `snapshot ${snapshot} of ${volume}`)
        begin(request)
      }
      const one = running.get(new_volume)
      if (one !== undefined) {
        await Promise.race([one.ended, sleep(clock, WAIT_MS, one.hurry.signal).catch(() => {})])
        const { copiedBytes: copied_bytes, totalBytes: total_bytes } = one
        if (!one.done) return { volume: new_volume, state: 'cloning', copied_bytes, total_bytes }
        if (running.get(new_volume) === one) running.delete(new_volume)
        if (one.failure !== undefined) throw one.failure
      }
      // Also after a crash between its making and this.
      const info = await plain.serve({ volume: new_volume, serving: 'standalone', reason: '' })
      const bytes = info.size_bytes
      return { volume: new_volume, state: 'cloned', copied_bytes: bytes, total_bytes: bytes }
    },
    async close() {
      stop.abort()
      await Promise.all([...running.values()].map(({ ended }) => ended))
    },
  }
}
