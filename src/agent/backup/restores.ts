import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { CHECKPOINT_UNKNOWN } from '#vault/faults.ts'
import type { Checkpoint } from '#vault/restore/checkpoint.ts'
import type { RestoreInfo, RestoreRequest } from '#wire/site/backups.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import { NOT_WRITER, VOLUME_BUSY } from '#agent/replication/faults.ts'
import type { SessionHost } from '#agent/replication/types.ts'
import { SIZE_MISMATCH, VOLUME_FAILED, VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import { forgetLeftCopy, type VolumeRecord, type VolumeStore } from '#agent/volumes/volume-store.ts'
import { Pace } from './pace.ts'
import type { RegionVault } from './region-vault.ts'
import { vaultThreads } from './threads.ts'
import { plainTarget, sessionTarget, type VolumeTarget } from './volume-target.ts'
import {
  durationMs,
  newWork,
  openWorks,
  type Running,
  type WorkRecord,
  type Works,
} from './works.ts'

/* Restores of checkpoints into volumes of this site.
 *
 * Clients are kept out of the volumes from the request on, across restarts of the agent, until the restore has ended: what they would see is neither the one
 * nor the other. A volume of a session is written through the session at its writer, so its replica gets it as any other write; the restore
 * ends with RESTORE_CUT_OFF when the site loses the right to write.
 *
 * Every block is authenticated against the tree, whose root is in the manifest, before it is written. Steps: write so many bytes, flush, note how far; a process
 * that was killed begins at the last note. */

/** One at a time: memory, and what is asked of the disk. */
const AT_ONCE_MAX = 1
/** Bytes of the volume between two notes. */
const STEP_BYTES = 1024 * 1024 * 1024
const WHY_CLOSED = 'it is being restored from a checkpoint'

export interface RestoreRecord extends WorkRecord {
  readonly request: RestoreRequest
  readonly totalBytes: number
  readonly doneBytes: number
  /** Durable so far: volumes, and bytes of the next one. */
  readonly volumesDone: number
  readonly bytesDone: number
  readonly verified: boolean
}

export interface RestoresParts {
  readonly directory: string
  readonly vault: RegionVault
  readonly volumes: VolumeStore
  readonly exports: ExportTable
  readonly roleAt: SessionHost['roleAt']
  /** Throws while something else has one of the volumes half written: it is filled, or set back to a snapshot. */
  readonly refuseWhileHalf: (volumes: readonly string[]) => void
  readonly clock: Clock
  readonly log: Log
}

export interface Restores {
  readonly works: Works<RestoreRecord>
  start(request: RestoreRequest): Promise<RestoreRecord>
  /** Keeps clients out of what is half restored. Before a client can open anything. */
  reserve(): void
  /** Throws VOLUME_BUSY while one of the volumes is being restored. */
  refuseWhileRestoring(volumes: readonly string[]): void
}

export const restoreInfo = (record: RestoreRecord, clock: Clock): RestoreInfo => ({
  restore: record.id,
  state: record.state,
  code: record.code,
  reason: record.reason,
  total_bytes: record.totalBytes,
  done_bytes: record.doneBytes,
  verified: record.verified,
  duration_ms: durationMs(record, clock),
})

export async function openRestores(parts: RestoresParts): Promise<Restores> {
  const { volumes, exports, vault, clock } = parts
  const works = await openWorks<RestoreRecord>({
    directory: parts.directory,
    what: 'restore',
    clock,
    log: parts.log,
    atOnceMax: AT_ONCE_MAX,
    run: (running) => new Restore(parts, running).carryOut(),
    async ended({ id, request }) {
      for (const { volume } of request.volumes) {
        if (!isBusy(volume, id)) for (const name of namesOf(parts, volume)) exports.unreserve(name)
      }
    },
  })

  /** Clients are kept out already, and the note of it is not durable yet. */
  const beginning = new Set<RestoreRequest>()

  function isBusy(volume: string, but?: string): boolean {
    const running = works.list().filter(({ id, state }) => state === 'running' && id !== but)
    return [...running.map(({ request }) => request), ...beginning].some(({ volumes: written }) =>
      written.some((one) => one.volume === volume),
    )
  }

  function reserve({ request }: RestoreRecord): void {
    for (const { volume } of request.volumes) {
      for (const name of namesOf(parts, volume)) exports.reserve(name, WHY_CLOSED)
    }
  }

  return {
    works,
    async start(request) {
      const begun = works.begin(request.restore, async () => {
        const checkpoint = await (await vault.open()).checkpoint(request.checkpoint)
        parts.refuseWhileHalf(request.volumes.map(({ volume }) => volume))
        for (const one of request.volumes) {
          if (isBusy(one.volume)) throw busy(one.volume, 'another restore writes it')
          refuse(parts, checkpoint, one)
        }
        const fresh: RestoreRecord = {
          ...newWork(request.restore, clock),
          request,
          totalBytes: request.volumes.reduce(
            (sum, { volume }) => sum + (volumes.record(volume)?.sizeBytes ?? 0),
            0,
          ),
          doneBytes: 0,
          volumesDone: 0,
          bytesDone: 0,
          verified: false,
        }
        // In the step in which nobody had them open.
        reserve(fresh)
        beginning.add(request)
        return fresh
      })
      return await begun.finally(() => beginning.delete(request))
    },
    reserve() {
      for (const record of works.list()) if (record.state === 'running') reserve(record)
    },
    refuseWhileRestoring(ids) {
      const found = ids.find((id) => isBusy(id))
      if (found !== undefined) throw busy(found, WHY_CLOSED)
    },
  }
}

const busy = (volume: string, reason: string) =>
  new Fault(VOLUME_BUSY, `volume ${volume}: ${reason}`, { volume })

/** Under which names clients would open a volume. */
function namesOf({ volumes }: RestoresParts, volume: string): string[] {
  const serving = volumes.record(volume)?.serving
  return serving?.mode === 'session' ? [volume, serving.pair] : [volume]
}

function refuse(
  parts: RestoresParts,
  checkpoint: Checkpoint,
  { name, volume }: RestoreRequest['volumes'][number],
): void {
  const doing = `restoring to volume ${volume}`
  const record = parts.volumes.record(volume)
  if (record === undefined) throw new Fault(VOLUME_UNKNOWN, doing)
  if (record.failed !== null) throw new Fault(VOLUME_FAILED, doing)
  const { serving } = record
  if (serving.mode === 'session' && parts.roleAt(serving.session)?.role !== 'writer') {
    throw new Fault(NOT_WRITER, doing, { session: serving.session })
  }
  if (namesOf(parts, volume).some((one) => parts.exports.connectionCount(one) > 0)) {
    throw busy(volume, 'a client has it open')
  }
  const source = checkpoint.manifest.volumes.find(({ id }) => id === name)
  if (source === undefined) {
    throw new Fault(CHECKPOINT_UNKNOWN, `${doing}: volume ${name} of ${checkpoint.manifest.id}`)
  }
  if (record.sizeBytes < source.sizeBytes) {
    throw new Fault(
      SIZE_MISMATCH,
      `${doing} of ${record.sizeBytes} bytes, from ${source.sizeBytes}`,
    )
  }
}

class Restore {
  readonly #parts: RestoresParts
  readonly #running: Running<RestoreRecord>
  readonly #pace: Pace
  #before = 0

  constructor(parts: RestoresParts, running: Running<RestoreRecord>) {
    this.#parts = parts
    this.#running = running
    this.#pace = new Pace(parts.clock, running.record.request.rate_bytes)
  }

  async carryOut(): Promise<void> {
    const { request } = this.#running.record
    const vault = await this.#parts.vault.open()
    const checkpoint = await vault.checkpoint(request.checkpoint)
    for (const [i, one] of request.volumes.entries()) {
      const record = this.#parts.volumes.record(one.volume)
      if (record === undefined) throw new Fault(VOLUME_UNKNOWN, `restoring to ${one.volume}`)
      if (i >= this.#running.record.volumesDone) await this.#volume(checkpoint, one, record)
      this.#before += record.sizeBytes
    }
    await this.#running.persist({ verified: true })
  }

  async #volume(
    checkpoint: Checkpoint,
    one: RestoreRequest['volumes'][number],
    { serving, sizeBytes }: VolumeRecord,
  ): Promise<void> {
    const { exports, volumes, clock } = this.#parts
    const { signal, record } = this.#running
    await forgetLeftCopy(volumes, one.volume)
    const target =
      serving.mode === 'session'
        ? await sessionTarget(exports, serving.pair, clock, signal)
        : plainTarget(await volumes.open(one.volume))
    const source = checkpoint.manifest.volumes.find(({ id }) => id === one.name)?.sizeBytes ?? 0
    try {
      for (let at = record.bytesDone; at < source; ) {
        const length = Math.min(STEP_BYTES, source - at)
        await this.#step(checkpoint, one, target, at, length)
        at += length
        await this.#running.persist({ bytesDone: at })
      }
      if (!one.blank) await target.zero(source, sizeBytes - source)
      await target.flush()
    } finally {
      target.close()
    }
    await this.#running.persist({
      volumesDone: this.#running.record.volumesDone + 1,
      bytesDone: 0,
      doneBytes: this.#before + sizeBytes,
    })
  }

  async #step(
    checkpoint: Checkpoint,
    { name, blank }: RestoreRequest['volumes'][number],
    target: VolumeTarget,
    offset: number,
    length: number,
  ): Promise<void> {
    const { signal } = this.#running
    await checkpoint.restore(
      name,
      {
        write: async (at, data) => {
          await target.write(at, data)
          await this.#pace.spent(data.length, signal)
        },
        ...(blank ? {} : { zero: (at: number, bytes: number) => target.zero(at, bytes) }),
      },
      {
        offset,
        length,
        threads: vaultThreads(),
        signal,
        progress: (bytes) =>
          this.#running.note({ doneBytes: this.#before + offset + Math.min(bytes, length) }),
      },
    )
    await target.flush()
  }
}
