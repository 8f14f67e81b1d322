import { Agent, request as httpsRequest } from 'node:https'
import { Compile } from 'typebox/compile'
import { Fault } from '#base/fault.ts'
import type { ReplicaRequest } from '#wire/site/backups.ts'
import {
  decodeWanted,
  encodeHave,
  encodePut,
  JSON_BYTES_MAX,
  type NamedBlock,
  type OpenTransfer,
  type Put,
  PutAnswer,
  REPLICA_PATH,
  TICKET_SCHEME,
  TRANSFER_HEADER,
  TransferFinished,
  TransferOpened,
  TransferRefusal,
} from '#wire/replica/messages.ts'
import { NO_VAULT, REPLICA_VAULT_FAILED, TICKET_REFUSED, TRANSFER_REFUSED } from './faults.ts'

/* The source's end of a transfer: requests to the door of another region. The authority that the target names is the only one that is trusted, and the
 * certificate must be of the host that is dialled. */

/** The line was cut, or the other side has no room or forgot the transfer: open it again. */
export class LineDown extends Error {
  /** What the other side said it was, if it said anything. */
  readonly code: string | undefined
  constructor(message: string, code?: string) {
    super(message)
    this.code = code
  }
}

/** The other side cannot open the record of this chunk. */
export class RecordDamaged extends Error {
  readonly chunk: string
  constructor(chunk: string) {
    super(`the record of chunk ${chunk} does not open`)
    this.chunk = chunk
  }
}

/** Whether what the other side cannot do is its vault's fault: full, out of reach, or not to be opened. */
export const isOfVault = (code: string | undefined): boolean =>
  code === NO_VAULT.code || code?.startsWith('VAULT_') === true

/** Longest silence of the other side. A `put` may wait for a flush there, `open` for its index to be read. */
const SILENCE_MS = 120_000
/** For the word that nothing more comes. Whoever stops an agent waits for it. */
const END_MS = 2_000

export class ReplicaLine {
  readonly #target: ReplicaRequest['target']
  readonly #agent: Agent
  #signal: AbortSignal
  #transfer = ''

  constructor(target: ReplicaRequest['target'], streams: number, signal: AbortSignal) {
    this.#target = target
    this.#signal = signal
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: streams,
      ca: target.authority,
      minVersion: 'TLSv1.3',
    })
  }

  async open(message: OpenTransfer): Promise<TransferOpened> {
    const body = Buffer.from(JSON.stringify(message))
    const authorization = `${TICKET_SCHEME} ${this.#target.ticket}`
    const answer = told(opened, await this.#post('open', body, { authorization }))
    if (answer.state === 'open') this.#transfer = answer.transfer
    return answer
  }

  async have(volume: number, blocks: readonly NamedBlock[]): Promise<boolean[]> {
    const wanted = decodeWanted(await this.#ask('have', encodeHave(volume, blocks)), blocks.length)
    if (wanted === undefined) throw new Fault(TRANSFER_REFUSED, 'asking for blocks: no answer')
    return wanted
  }

  async put(put: Put): Promise<PutAnswer> {
    return told(putAnswer, await this.#ask('put', encodePut(put)))
  }

  async endVolume(volume: number): Promise<void> {
    await this.#ask('volume', Buffer.from(JSON.stringify({ volume })))
  }

  async finish(): Promise<TransferFinished> {
    return told(finished, await this.#ask('finish', Buffer.from('{}')))
  }

  /** The other side need not wait for more. Said also when the work was cancelled, and not waited for long. */
  async end(): Promise<void> {
    if (this.#transfer === '') return
    this.#signal = AbortSignal.timeout(END_MS)
    await this.#ask('end', Buffer.from('{}'))
  }

  close(): void {
    this.#agent.destroy()
  }

  #ask(name: string, body: Buffer): Promise<Buffer> {
    return this.#post(name, body, { [TRANSFER_HEADER]: this.#transfer })
  }

  async #post(name: string, body: Buffer, headers: Record<string, string>): Promise<Buffer> {
    const { status, bytes } = await this.#send(name, body, headers)
    if (status === 200) return bytes
    const refused = refusalIn(bytes)
    const doing = `sending a replica (${name}): ${refused.text}`
    if (status === 401) throw new Fault(TICKET_REFUSED, doing)
    if (status === 422) throw new RecordDamaged(refused.text)
    if (status >= 500 || status === 410)
      throw new LineDown(`${refused.code}: ${refused.text}`, refused.code)
    if (isOfVault(refused.code)) throw new Fault(REPLICA_VAULT_FAILED, doing)
    throw new Fault(TRANSFER_REFUSED, `${doing} (${refused.code})`)
  }

  #send(
    name: string,
    body: Buffer,
    headers: Record<string, string>,
  ): Promise<{ readonly status: number; readonly bytes: Buffer }> {
    return new Promise((resolve, reject) => {
      const fail = (error: Error) =>
        reject(this.#signal.aborted ? (this.#signal.reason as Error) : new LineDown(error.message))
      const request = httpsRequest(
        `${this.#target.url}${REPLICA_PATH}${name}`,
        {
          method: 'POST',
          agent: this.#agent,
          signal: this.#signal,
          timeout: SILENCE_MS,
          headers: { ...headers, 'content-length': body.length },
        },
        (response) => {
          const parts: Buffer[] = []
          let length = 0
          response.on('data', (part: Buffer) => {
            parts.push(part)
            length += part.length
            if (length > JSON_BYTES_MAX) response.destroy(new Error('the answer is too long'))
          })
          response.on('error', fail)
          response.on('end', () =>
            resolve({ status: response.statusCode ?? 0, bytes: Buffer.concat(parts) }),
          )
        },
      )
      request.on('timeout', () => request.destroy(new Error('the other side is silent')))
      request.on('error', fail)
      request.end(body)
    })
  }
}

/** A checked answer. Checks are made once: there is an answer for every half MiB. */
function told<T>(check: Check<T>, bytes: Buffer): T {
  const value = parse(bytes)
  if (check.Check(value)) return value
  throw new Fault(TRANSFER_REFUSED, 'reading an answer of the other region')
}

interface Check<T> {
  Check(value: unknown): value is T
}

const opened = Compile(TransferOpened)
const putAnswer = Compile(PutAnswer)
const finished = Compile(TransferFinished)
const refusal = Compile(TransferRefusal)

function refusalIn(bytes: Buffer): TransferRefusal {
  const value = parse(bytes)
  return refusal.Check(value) ? value : { code: 'UNKNOWN', text: 'no reason told' }
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString())
  } catch {
    return undefined
  }
}
