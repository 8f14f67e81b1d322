import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { type Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import {
  CHECKPOINT_UNKNOWN,
  OBJECT_MISSING,
  VAULT_DAMAGED,
  VAULT_STORE_FAILED,
  VAULT_STORE_REFUSED,
} from '#vault/faults.ts'
import type { BackupSession } from '#vault/backup/session.ts'
import type { DataKey } from '#vault/keys/keyring.ts'
import { tryRoom } from '#vault/trial.ts'
import type { Vault } from '#vault/vault.ts'
import type { OpenTransfer, TransferFinished, TransferOpened } from '#wire/replica/messages.ts'
import { OWNER_LABEL } from './backups.ts'
import { IncomingTransfer } from './incoming-transfer.ts'
import { Refusal } from './refusal.ts'
import type { RegionVault } from './region-vault.ts'
import type { Ticket } from './tickets.ts'

/* The transfers that are open, by replica. One that the vault has failed is over at once: whoever comes back for it gets a new one, which finds
 * by their names the chunks that are durable. */

/** Transfers at a time: each is a backup session, with its memory. */
const TRANSFERS_MAX = 2
/** A transfer of which nothing was heard for so long keeps what it has and ends. */
const IDLE_MS = 5 * 60_000
/** Notes of replicas that came in. */
const NOTES_MAX = 1000
/** Keys are kept for ever, so a replica brings few: its source may have made a new one between two attempts. */
const KEYS_PER_REPLICA_MAX = 4
/** Of all other vaults together. Each is read whenever the vault is opened. */
const KEYS_ADOPTED_MAX = 1000
/** Room that a store must have again after it had none. What was sent for nothing then, a MiB or two, is little beside it. */
const TRIAL_MIB = 32
/** The label of a replica: vault and checkpoint that it is a copy of. */
export const REPLICA_OF_LABEL = 'replica_of'

export interface RoomsParts {
  readonly directory: string
  readonly vault: RegionVault
  readonly clock: Clock
  readonly log: Log
}

interface Note {
  /** Session of the vault, and so id of the checkpoint, of the transfer that was open last; null: none was so far. */
  readonly attempt: string | null
  /** Ids of the keys that came with it and were not known before. */
  readonly keys?: readonly string[]
}

interface Open {
  readonly transfer: IncomingTransfer
  /** What it was opened for. An attempt that asks for anything else begins anew: what one base implies, another does not. */
  readonly purpose: string
  cancelIdle: () => void
}

export class Rooms {
  readonly #parts: RoomsParts
  readonly #open = new Map<string, Open>()
  #opening: Promise<unknown> = Promise.resolve()
  /** The store of the vault took no more, when it was last heard of. */
  #doubted = false

  constructor(parts: RoomsParts) {
    this.#parts = parts
  }

  open(request: OpenTransfer, ticket: Ticket): Promise<TransferOpened> {
    const work = async () => {
      try {
        return await this.#openOne(request, ticket)
      } catch (error) {
        this.#doubted ||= isStoreTrouble(error)
        throw error
      }
    }
    const result = this.#opening.then(work, work)
    this.#opening = result.catch(() => undefined)
    return result
  }

  async #openOne(request: OpenTransfer, ticket: Ticket): Promise<TransferOpened> {
    const { replica } = request
    const vault = await this.#parts.vault.open()
    const found = this.#open.get(replica)
    const same = found?.purpose === purposeOf(request)
    if (found !== undefined && !same) await this.end(replica)
    const known = same ? found : undefined
    if (known !== undefined) {
      await known.transfer.reopen()
      // It was finished, or ended, while this waited for it.
      if (this.#open.get(replica) !== known) return await this.#openOne(request, ticket)
    } else {
      const done = await this.#committed(vault, replica)
      if (done !== undefined) return { state: 'done', checkpoint: done }
      if (this.#open.size >= TRANSFERS_MAX) {
        throw new Refusal(503, 'TRANSFER_BUSY', `${TRANSFERS_MAX} replicas are coming in`)
      }
    }
    const room = known ?? (await this.#begin(vault, request, ticket))
    this.#open.set(replica, room)
    this.#heard(replica, room)
    const { token, session, based, volumesDone } = room.transfer
    return { state: 'open', transfer: token, session, based, volumes_done: volumesDone }
  }

  /** Throws a Refusal when there is none of this token. */
  find(token: string): { readonly replica: string; readonly transfer: IncomingTransfer } {
    for (const [replica, room] of this.#open) {
      if (room.transfer.token !== token) continue
      this.#heard(replica, room)
      return { replica, transfer: room.transfer }
    }
    throw new Refusal(410, 'TRANSFER_BUSY', 'this transfer has ended or was taken over')
  }

  #heard(replica: string, room: Open): void {
    room.cancelIdle()
    room.cancelIdle = this.#parts.clock.after(IDLE_MS, () => void this.end(replica))
  }

  /** Does something with the transfer of this token. What is not refused and goes wrong all the same is the end of it. */
  async use<T>(token: string, act: (transfer: IncomingTransfer) => Promise<T>): Promise<T> {
    const { replica, transfer } = this.find(token)
    try {
      return await act(transfer)
    } catch (error) {
      if (error instanceof Refusal) throw error
      const reason = error instanceof Error ? error.message : String(error)
      const code = isStoreTrouble(error) ? error.code : 'TRANSFER_BUSY'
      // Before it is ended: the source may be back meanwhile.
      this.#doubted ||= isStoreTrouble(error)
      this.#parts.log.warn({ replica, err: error }, 'a transfer has failed and is ended')
      if (this.#open.get(replica)?.transfer === transfer) await this.end(replica)
      throw new Refusal(503, code, `the transfer has failed here: ${reason}`)
    }
  }

  async finish(token: string): Promise<TransferFinished> {
    const { replica } = this.find(token)
    const room = this.#open.get(replica)
    return await this.use(token, async (transfer) => {
      const { id, storedBytes } = await transfer.finish()
      room?.cancelIdle()
      this.#open.delete(replica)
      const arrived = transfer.arrivedBytes
      this.#parts.log.info({ replica, checkpoint: id, bytes: storedBytes }, 'a replica has come in')
      return { checkpoint: id, arrived_bytes: arrived }
    })
  }

  async end(replica: string): Promise<void> {
    const room = this.#open.get(replica)
    if (room === undefined) return
    this.#open.delete(replica)
    room.cancelIdle()
    try {
      await room.transfer.close()
    } catch (error) {
      this.#parts.log.warn({ replica, err: error }, 'a transfer could not be ended')
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.keys()].map((replica) => this.end(replica)))
  }

  /** Before the next bytes are sent for nothing: the source sends again what was not durable. */
  async #tryStore({ store }: Vault): Promise<void> {
    if (!this.#doubted) return
    await tryRoom(store, TRIAL_MIB)
    this.#doubted = false
  }

  async #begin(vault: Vault, request: OpenTransfer, ticket: Ticket): Promise<Open> {
    const { replica } = request
    const blockBytes = vault.header.block_bytes
    if (request.block_bytes !== blockBytes) {
      throw new Refusal(409, 'BLOCK_SIZE', `blocks here have ${blockBytes} bytes`)
    }
    await this.#tryStore(vault)
    const noted = await this.#noted(replica)
    const dataKey = await this.#adopted(vault, request, noted)
    const session = await beginSession(vault, request, ticket, dataKey)
    const volumes = request.volumes.map(({ id, size_bytes }) => ({ id, sizeBytes: size_bytes }))
    const transfer = new IncomingTransfer({ ...session, blockBytes, volumes })
    await this.#note(replica, { ...(await this.#noted(replica)), attempt: transfer.session })
    return { transfer, purpose: purposeOf(request), cancelIdle: () => {} }
  }

  /** The source's key, wrapped by our own master key from now on. It must not be able to pass for ours: then it would know what our backups are encrypted with. */
  async #adopted(vault: Vault, { replica, data_key }: OpenTransfer, noted: Note): Promise<DataKey> {
    const key = keyIn(data_key)
    const find = () => vault.dataKeys().find(({ id }) => id.equals(key.id))
    if (find() === undefined) {
      if (key.origin === vault.header.id) {
        throw new Refusal(409, 'KEY_REFUSED', 'this vault has no such key')
      }
      const brought = noted.keys ?? []
      const adopted = vault.dataKeys().filter(({ origin }) => origin !== vault.header.id)
      if (brought.length >= KEYS_PER_REPLICA_MAX || adopted.length >= KEYS_ADOPTED_MAX) {
        throw new Refusal(409, 'KEY_REFUSED', 'this vault has taken over too many keys')
      }
      await this.#note(replica, { ...noted, keys: [...brought, data_key.id] })
      await vault.adoptDataKeys([key])
    }
    const known = find()
    if (known?.secret.equals(key.secret) !== true || !known.naming.equals(key.naming)) {
      throw new Refusal(409, 'KEY_REFUSED', 'another key has this id')
    }
    return known
  }

  /** The checkpoint of a transfer that is not open any more; if it came to none, it never will. */
  async #committed(vault: Vault, replica: string): Promise<string | undefined> {
    const { attempt } = await this.#noted(replica)
    if (attempt === null) return undefined
    return (await vault.revoke(attempt)) ? undefined : attempt
  }

  async #noted(replica: string): Promise<Note> {
    const text = await readTextIfPresent(this.#noteOf(replica))
    return text === undefined ? { attempt: null } : (JSON.parse(text) as Note)
  }

  async #note(replica: string, note: Note): Promise<void> {
    await writeFileWhole(this.#noteOf(replica), `${JSON.stringify(note)}\n`, 0o600)
    const directory = join(this.#parts.directory, 'notes')
    const names = (await readdir(directory)).filter((name) => name.endsWith('.json'))
    if (names.length <= NOTES_MAX) return
    const aged = await Promise.all(
      names.map(async (name) => ({ name, ms: (await stat(join(directory, name))).mtimeMs })),
    )
    const old = aged.toSorted((a, b) => b.ms - a.ms).slice(NOTES_MAX)
    for (const { name } of old) await rm(join(directory, name), { force: true })
  }

  #noteOf(replica: string): string {
    return join(this.#parts.directory, 'notes', `${replica}.json`)
  }
}

const isStoreTrouble = (error: unknown): error is Fault =>
  isFault(error, VAULT_STORE_FAILED) || isFault(error, VAULT_STORE_REFUSED)

const keyIn = (told: OpenTransfer['data_key']): DataKey => ({
  id: Buffer.from(told.id, 'hex'),
  secret: Buffer.from(told.secret, 'base64'),
  naming: Buffer.from(told.naming, 'base64'),
  generation: told.generation,
  origin: told.origin,
})

/** On the base, as long as it is here: it may have been deleted, and that may be said of it at any moment until the session holds it. */
async function beginSession(
  vault: Vault,
  request: OpenTransfer,
  ticket: Ticket,
  dataKey: DataKey,
): Promise<{ readonly session: BackupSession; readonly based: boolean }> {
  const { [OWNER_LABEL]: _, ...labels } = request.labels
  const options = {
    dataKey,
    labels: {
      ...labels,
      ...ticket.labels,
      [REPLICA_OF_LABEL]: `${request.vault}/${request.checkpoint}`,
    },
    createdMs: request.created_ms,
    inlineBatches: 0,
    threads: 1,
  }
  const parent = await baseOf(vault, request, ticket)
  if (parent !== undefined) {
    try {
      return { session: await vault.begin({ ...options, parent }), based: true }
    } catch (error) {
      const gone = [CHECKPOINT_UNKNOWN, OBJECT_MISSING, VAULT_DAMAGED]
      if (!gone.some((kind) => isFault(error, kind))) throw error
    }
  }
  return { session: await vault.begin(options), based: false }
}

const purposeOf = ({ vault, checkpoint, base, volumes, data_key }: OpenTransfer): string =>
  JSON.stringify([
    vault,
    checkpoint,
    base === null ? null : [base.checkpoint, base.replica_checkpoint],
    volumes.map(({ id, size_bytes }) => [id, size_bytes]),
    data_key.id,
  ])

/** The checkpoint to build on, when it is here, of the same volumes, a replica of what the source says, and of the same owner. */
async function baseOf(
  vault: Vault,
  request: OpenTransfer,
  ticket: Ticket,
): Promise<string | undefined> {
  if (request.base === null) return undefined
  try {
    const { manifest } = await vault.checkpoint(request.base.replica_checkpoint)
    const isOf = manifest.labels[REPLICA_OF_LABEL] === `${request.vault}/${request.base.checkpoint}`
    const fits = request.volumes.every(({ id, size_bytes }) => {
      const before = manifest.volumes.find((one) => one.id === id)
      return before === undefined || before.sizeBytes <= size_bytes
    })
    const ours = manifest.labels[OWNER_LABEL] === ticket.labels[OWNER_LABEL]
    return isOf && fits && ours ? manifest.id : undefined
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}
