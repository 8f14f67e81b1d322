import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { Checkpoint } from '#vault/restore/checkpoint.ts'
import type { VaultAttachment } from '#wire/site/backups.ts'
import type { Extent } from '#agent/volumes/volume.ts'
import { type Device, type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import { ATTACHMENT_ENDED, TOO_MANY_ATTACHED } from './faults.ts'
import type { RegionVault } from './region-vault.ts'

/* Checkpoints over NBD: `checkpoint/ID/VOLUME`, read-only, straight from the vault. Attached first, so that name, size and owner are known when a client asks;
 * what is attached is noted, and holds over restarts of the agent.
 *
 * Requests come late: a connection breaks, the store answers after a minute, the end of an attempt that was given up is asked for again until it is heard. So each
 * attachment has an id of its caller's, and a checkpoint is exported while one of them is left. The end of an earlier one takes nothing from a later one, and
 * what comes after its own end does not come about. */

const PREFIX = 'checkpoint/'
const NAME = /^checkpoint\/([0-9a-f-]{36})\/([0-9a-zA-Z-]{1,64})$/
/** Attached at a time. */
const ATTACHED_MAX = 256
/** Most extents told in one reply; clients ask again for the rest. */
const EXTENTS_COUNT_MAX = 4096
/** What is read from the vault at a time, and so many of them are kept per export: clients read in small pieces. */
const UNIT_BYTES = 256 * 1024
const UNITS_KEPT = 32
/** Ends that are remembered, the oldest is forgotten first: a request is late by minutes. Not over a restart, which no request outlives. */
const ENDED_KEPT = 1024

interface Attached {
  readonly checkpoint: string
  readonly owner: string
  /** On whose behalf. Not there in what an older release noted. */
  readonly attachments?: readonly string[]
  readonly volumes: readonly { readonly id: string; readonly sizeBytes: number }[]
}

export interface CheckpointExports {
  /** `attachment`: undefined for callers of an older release. Faults: TOO_MANY_ATTACHED, ATTACHMENT_ENDED, those of the vault. */
  attach(checkpoint: string, owner: string, attachment?: string): Promise<VaultAttachment>
  /** `attachment`: undefined: all of them. */
  detach(checkpoint: string, attachment?: string): Promise<void>
  /** Whose certificates may open an export; undefined: it is none of these. */
  ownerOf(exportName: string): string | undefined
}

export interface CheckpointExportsParts {
  /** The note of what is attached. */
  readonly file: string
  readonly vault: RegionVault
  readonly exports: ExportTable
  readonly log: Log
}

const nameOf = (checkpoint: string, volume: string): string => `${PREFIX}${checkpoint}/${volume}`

export async function openCheckpointExports(
  parts: CheckpointExportsParts,
): Promise<CheckpointExports> {
  const { file, vault, exports, log } = parts
  const attached = await notedIn(file, log)
  /** Being detached: still noted, and not opened any more. */
  const leaving = new Set<string>()
  const ended = new Set<string>()
  /** Changes wait for each other: a list must not be overwritten by an older one. */
  let tail: Promise<unknown> = Promise.resolve()

  const find = (name: string) => {
    const [, checkpoint = '', volume] = NAME.exec(name) ?? []
    const one = attached.get(checkpoint)
    return { one, volume: one?.volumes.find(({ id }) => id === volume) }
  }

  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = tail.then(work)
    tail = result.catch(() => undefined)
    return result
  }

  const note = async (list: Iterable<Attached>): Promise<void> => {
    await writeFileWhole(file, `${JSON.stringify([...list])}\n`, 0o600)
  }

  /** Noted first: what cannot be noted is as it was. */
  async function put(one: Attached): Promise<void> {
    await note(new Map([...attached, [one.checkpoint, one]]).values())
    attached.set(one.checkpoint, one)
  }

  function rememberEnd(attachment: string): void {
    ended.add(attachment)
    if (ended.size > ENDED_KEPT) ended.delete(ended.values().next().value as string)
  }

  exports.offer(PREFIX, (name) => {
    const { one, volume } = find(name)
    if (one === undefined || volume === undefined || leaving.has(one.checkpoint)) {
      return 'no such checkpoint is attached here'
    }
    const open = async () => await (await vault.open()).checkpoint(one.checkpoint)
    return checkpointDevice(volume, open, log)
  })

  return {
    async attach(checkpoint, owner, attachment) {
      const { manifest } = await (await vault.open()).checkpoint(checkpoint)
      const volumes = manifest.volumes.map(({ id, sizeBytes }) => ({ id, sizeBytes }))
      await inTurn(async () => {
        const doing = `attaching checkpoint ${checkpoint}`
        if (attachment !== undefined && ended.has(attachment)) {
          throw new Fault(ATTACHMENT_ENDED, doing, { attachment })
        }
        const known = attached.get(checkpoint)
        if (known === undefined && attached.size >= ATTACHED_MAX) {
          throw new Fault(TOO_MANY_ATTACHED, doing)
        }
        const attachments = new Set(known?.attachments)
        if (attachment !== undefined) attachments.add(attachment)
        await put({ checkpoint, owner, attachments: [...attachments], volumes })
      })
      return {
        exports: volumes.map(({ id, sizeBytes }) => ({
          name: nameOf(checkpoint, id),
          volume: id,
          size_bytes: sizeBytes,
        })),
      }
    },
    async detach(checkpoint, attachment) {
      await inTurn(async () => {
        if (attachment !== undefined) rememberEnd(attachment)
        const known = attached.get(checkpoint)
        if (known === undefined) return
        const left =
          attachment === undefined
            ? []
            : (known.attachments ?? []).filter((other) => other !== attachment)
        if (left.length > 0) return await put({ ...known, attachments: left })
        leaving.add(checkpoint)
        try {
          for (const { id } of known.volumes) {
            exports.remove(nameOf(checkpoint, id), 'the checkpoint was detached')
          }
          await note([...attached.values()].filter((one) => one !== known))
          // Not before: what cannot be noted is still attached, and whoever asked for the end of it asks again.
          attached.delete(checkpoint)
        } finally {
          leaving.delete(checkpoint)
        }
      })
    },
    ownerOf: (name) => (name.startsWith(PREFIX) ? (find(name).one?.owner ?? '') : undefined),
  }
}

/** A list that cannot be read attaches nothing, and does not keep the agent from its volumes; people attach again. */
async function notedIn(file: string, log: Log): Promise<Map<string, Attached>> {
  const text = await readTextIfPresent(file)
  if (text === undefined) return new Map()
  try {
    const noted = JSON.parse(text) as Attached[]
    return new Map(noted.map((one) => [one.checkpoint, one]))
  } catch (error) {
    log.error({ path: file, err: error }, 'the note of attached checkpoints cannot be read')
    return new Map()
  }
}

function checkpointDevice(
  volume: { readonly id: string; readonly sizeBytes: number },
  open: () => Promise<Checkpoint>,
  log: Log,
): Device {
  const { id, sizeBytes } = volume
  let opening: Promise<Checkpoint> | undefined
  const units = new Map<number, Promise<Buffer>>()

  /** Opened by the first request. A store that did not answer is asked again by the next one. */
  function checkpoint(): Promise<Checkpoint> {
    opening ??= open().catch((error: unknown) => {
      opening = undefined
      throw error
    })
    return opening
  }

  function unit(index: number): Promise<Buffer> {
    const known = units.get(index)
    units.delete(index)
    const reading = known ?? readUnit(index)
    units.set(index, reading)
    if (units.size > UNITS_KEPT) units.delete(units.keys().next().value as number)
    if (known === undefined) reading.catch(() => units.delete(index))
    return reading
  }

  async function readUnit(index: number): Promise<Buffer> {
    const offset = index * UNIT_BYTES
    return await (await checkpoint()).read(id, offset, Math.min(UNIT_BYTES, sizeBytes - offset))
  }

  async function read(io: Io): Promise<void> {
    for (let done = 0; done < io.length; ) {
      const at = io.offset + done
      const index = Math.floor(at / UNIT_BYTES)
      const from = at - index * UNIT_BYTES
      const bytes = await unit(index)
      done += bytes.copy(io.slab?.bytes as Buffer, io.at + done, from, from + io.length - done)
    }
  }

  return {
    sizeBytes,
    readOnly: true,
    submit(batch, count) {
      for (let i = 0; i < count; i++) {
        const io = batch[i] as Io
        carryOut(io).then(
          (error) => io.complete(error),
          // Damage, or a store that does not answer: both are the outside world.
          (error: unknown) => {
            log.warn({ volume: id, offset: io.offset, err: error }, 'a checkpoint cannot be read')
            io.complete(IO_ERRORS.EIO)
          },
        )
      }
    },
  }

  async function carryOut(io: Io): Promise<IoError> {
    if (io.kind === 'read') await read(io)
    else if (io.kind === 'extents') io.extents = await extentsOf(await checkpoint(), id, io)
    else if (io.kind !== 'flush') return IO_ERRORS.EPERM
    return IO_ERRORS.ok
  }
}

/** As the tree tells: blocks of zeroes are holes. */
async function extentsOf(
  checkpoint: Checkpoint,
  volume: string,
  { offset, length }: Io,
): Promise<Extent[]> {
  const { blockBytes } = checkpoint.manifest
  const end = offset + length
  const found: { offset: number; length: number; hole: boolean }[] = []
  const [from, to] = [Math.floor(offset / blockBytes), Math.ceil(end / blockBytes)]
  for await (const item of checkpoint.blocks(volume, from, to)) {
    const hole = item.kind === 'zero'
    const start = Math.max(offset, item.block * blockBytes)
    const stop = Math.min(end, (item.block + (hole ? item.count : 1)) * blockBytes)
    const last = found.at(-1)
    if (last?.hole === hole) last.length += stop - start
    else if (found.length === EXTENTS_COUNT_MAX) break
    else found.push({ offset: start, length: stop - start, hole })
  }
  return found
}
