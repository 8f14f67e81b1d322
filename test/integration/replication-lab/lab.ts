import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import {
  closedRecord,
  decideOwnership,
  leaseLeftMs,
  type Ownership,
  type OwnershipRequest,
} from '#domain/ownership.ts'
import type { SessionStatus, WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import { until } from '../../support/until.ts'
import type { FromSite, SiteOptions, ToSite } from './site.ts'

/* Two sites as processes, with the test as witness and control plane. Short silences and leases, so that a test of seconds sees
 * what takes an installation half a minute. */

export const SETTINGS: SiteOptions['settings'] = {
  peerSilenceMs: 1_000,
  heartbeatMs: 100,
  renewMs: 300,
  syncRateBytes: 0,
  holdBytes: 64 * 1024 * 1024,
  intentClearMs: 500,
}
const LEASE_MS = 1_500

export class Site {
  readonly name: string
  readonly directory: string
  readonly #lab: Lab
  #child: ChildProcess | undefined
  #id = 0
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(e: Error): void }>()
  port = 0
  socket = ''
  bootId = randomUUID()

  constructor(name: string, lab: Lab) {
    this.name = name
    this.#lab = lab
    this.directory = join(lab.directory, name)
  }

  async start(options: Partial<SiteOptions> = {}): Promise<void> {
    const all: SiteOptions = {
      site: this.name,
      directory: this.directory,
      bootId: this.bootId,
      port: this.port,
      security: { kind: 'keyed', secret: 'the cluster secret' },
      settings: { ...SETTINGS, ...this.#lab.settings },
      logLevel: process.env['LAB_LOG'] ?? 'fatal',
      ...this.#lab.options(this.name),
      ...options,
    }
    const child = fork(join(import.meta.dirname, 'site.ts'), [JSON.stringify(all)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#child = child
    await new Promise<void>((resolve, reject) => {
      child.on('error', reject)
      child.on('exit', (code, signal) => {
        if (this.#child === child) this.#child = undefined
        reject(new Error(`site ${this.name} ended: ${code ?? signal}`))
        for (const waiting of this.#waiting.values()) waiting.reject(new Error('site ended'))
        this.#waiting.clear()
      })
      child.on('message', (message: FromSite) => {
        if (message.kind === 'ready') {
          this.port = message.port
          this.socket = message.socket
          resolve()
        } else this.#take(message)
      })
    })
  }

  #take(message: Exclude<FromSite, { kind: 'ready' }>): void {
    if (message.kind === 'ask') {
      const answer = this.#lab.witness(message.session, message.ask as WitnessAsk, this.name)
      if (answer !== undefined) this.#send({ id: message.id, kind: 'answer', answer })
      return
    }
    const waiting = this.#waiting.get(message.id)
    this.#waiting.delete(message.id)
    if (message.kind === 'result') waiting?.resolve(message.value)
    else waiting?.reject(Object.assign(new Error(message.text), { code: message.code }))
  }

  #send(message: ToSite): void {
    if (this.#child?.connected) this.#child.send(message)
  }

  #call(message: Omit<Extract<ToSite, { kind: 'command' }>, 'id'> | object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const id = ++this.#id
      this.#waiting.set(id, { resolve, reject })
      this.#send({ id, ...message } as ToSite)
    })
  }

  command(name: string, request: unknown): Promise<unknown> {
    return this.#call({ kind: 'command', name, request })
  }

  async create(volume: string, sizeBytes: number, standby: boolean): Promise<void> {
    await this.#call({ kind: 'create', volume, sizeBytes, standby })
  }

  async status(): Promise<SessionStatus> {
    const statuses = (await this.#call({ kind: 'statuses' })) as SessionStatus[]
    const found = statuses[0]
    if (found === undefined) throw new Error(`site ${this.name} has no session`)
    return found
  }

  async sessions(): Promise<SessionStatus[]> {
    return (await this.#call({ kind: 'statuses' })) as SessionStatus[]
  }

  /** Its main thread stands still from now on for `ms`: it answers nobody. Its other threads go on. */
  async block(ms: number): Promise<void> {
    await this.#call({ kind: 'block', ms })
  }

  async syncs(): Promise<Record<string, number>> {
    return (await this.#call({ kind: 'syncs' })) as Record<string, number>
  }

  /** Snapshots and divergence records of the site. */
  async kept(): Promise<Kept> {
    return (await this.#call({ kind: 'kept' })) as Kept
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child
    if (child === undefined) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    await gone
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal)
  }

  /** Clean stop. */
  async stop(): Promise<void> {
    if (this.#child === undefined) return
    await this.#call({ kind: 'close' })
    await this.kill('SIGTERM')
  }

  connect(exportName: string): Promise<NbdClient> {
    return connectNbd({ unix: this.socket }, { exportName })
  }

  /** While the site is down: what its disk had not got yet reads as zeroes. */
  damage(volume: string, offset: number, length: number): void {
    const fd = openSync(join(this.directory, 'volumes', volume, 'data'), 'r+')
    writeSync(fd, Buffer.alloc(length), 0, length, offset)
    closeSync(fd)
  }

  data(volume: string): Buffer {
    return readFileSync(join(this.directory, 'volumes', volume, 'data'))
  }
}

export interface Kept {
  readonly snapshots: readonly { readonly id: string; readonly state: string }[]
  readonly divergences: readonly {
    readonly id: string
    readonly state: string
    /** Per volume. */
    readonly ranges: readonly (readonly { readonly offset: number; readonly length: number }[])[]
  }[]
}

export interface LabMember {
  readonly index: number
  readonly sizeBytes: number
  readonly blank: boolean
}

export class Lab {
  readonly directory: string
  readonly session = randomUUID()
  readonly a: Site
  readonly b: Site
  record: Ownership
  settings: Partial<SiteOptions['settings']> = {}
  security: ((site: string) => SiteOptions['security']) | undefined
  /** The witness answers nothing while true. */
  witnessDown = false
  readonly asked: string[] = []
  /** Where the replica dials; a proxy's port when one is in between. */
  linkPort: Record<string, number> = {}
  members: LabMember[] = []
  #attempt = 0

  private constructor(directory: string) {
    this.directory = directory
    this.a = new Site('az1', this)
    this.b = new Site('az2', this)
    this.record = closedRecord(this.session, 'az1', 'az2', 'lab')
  }

  static async make(): Promise<Lab> {
    return new Lab(await mkdtemp(join(tmpdir(), 'holdfast-link-')))
  }

  options(site: string): Partial<SiteOptions> {
    return this.security === undefined ? {} : { security: this.security(site) }
  }

  #time() {
    return {
      bootMs: performance.now(),
      waitUntilBootMs: 0,
      historyTrusted: true,
      leaseMs: LEASE_MS,
      driftMs: 100,
      incarnation: 'lab',
    }
  }

  witness(session: string, ask: WitnessAsk, site: string): WitnessAnswer | null | undefined {
    this.asked.push(`${site} ${ask.kind}`)
    if (this.witnessDown || session !== this.session) return null
    return this.decide(ask as OwnershipRequest)
  }

  decide(request: OwnershipRequest): WitnessAnswer {
    const answer = decideOwnership(this.record, request, this.#time())
    this.record = answer.record
    const record = this.wire(answer.record)
    if (answer.ok) return { ok: true, record, lease_ms: answer.leaseMs }
    return { ok: false, refusal: answer.refusal, record, retry_after_ms: answer.retryAfterMs }
  }

  wire({ session, epoch, state, writer, replica, mode, preferred }: Ownership) {
    return { session, epoch, state, writer, replica, mode, preferred }
  }

  /** A change by an operation. Repeats while a lease is held. */
  async change(request: object): Promise<void> {
    for (;;) {
      const attempt = `operation-${++this.#attempt}`
      const answer = this.decide({
        epoch: this.record.epoch,
        attempt,
        ...request,
      } as OwnershipRequest)
      if (answer.ok) return
      if (answer.refusal !== 'LEASE_HELD') throw new Error(answer.refusal)
      await new Promise((resolve) => setTimeout(resolve, leaseLeftMs(this.record, this.#time())))
    }
  }

  open(site: Site, force = false, record = this.record): Promise<unknown> {
    const peer = site === this.a ? this.b : this.a
    const port = this.linkPort[peer.name] ?? peer.port
    return site.command('session.open', {
      record: this.wire(record),
      members: this.members.map(({ index, sizeBytes, blank }) => ({
        index,
        pair: `pair-${index}`,
        size_bytes: sizeBytes,
        volumes: { az1: `a-${index}`, az2: `b-${index}` },
        replica_blank: blank,
      })),
      peer_link: `127.0.0.1:${port}`,
      force,
    })
  }

  async start(members: LabMember[]): Promise<void> {
    this.members = members
    await Promise.all([this.a.start(), this.b.start()])
    for (const { index, sizeBytes } of members) {
      await this.a.create(`a-${index}`, sizeBytes, false)
      await this.b.create(`b-${index}`, sizeBytes, true)
    }
  }

  /** Opens the session with az1 as writer and waits until it is in sync. */
  async protect(): Promise<void> {
    await this.change({ kind: 'open', writer: 'az1', replica: 'az2' })
    await this.open(this.b)
    await this.open(this.a)
    await this.inSync()
  }

  async inSync(writer: Site = this.a, replica: Site = this.b): Promise<void> {
    await until('in sync', async () => {
      const [mine, theirs] = await Promise.all([writer.status(), replica.status()])
      return (
        mine.phase === 'following' && theirs.phase === 'following' && mine.epoch === theirs.epoch
      )
    })
  }

  /** Both copies of every member, byte for byte, once nothing is in flight. */
  async same(): Promise<boolean> {
    const [a, b] = await Promise.all([this.a.status(), this.b.status()])
    if (a.sequence !== b.sequence) return false
    return this.members.every(({ index }) =>
      this.a.data(`a-${index}`).equals(this.b.data(`b-${index}`)),
    )
  }

  async end(): Promise<void> {
    await Promise.all([this.a.kill(), this.b.kill()])
    await rm(this.directory, { recursive: true, force: true })
  }
}

type Security = SiteOptions['security']

/** Certificates of one authority for both sites; `named` tells which site's name a site shows. */
export async function certificates(): Promise<(site: string, named?: string) => Security> {
  const authority = await createAuthority('lab', Date.now())
  const made = new Map<string, Security>()
  for (const site of ['az1', 'az2']) {
    const identity = { kind: 'agent', site, agent: `${site}-agent` } as const
    const leaf = { identity, hosts: ['127.0.0.1'], lifetimeDays: 1 }
    const { cert, key } = await issueCertificate(authority, leaf, Date.now())
    made.set(site, { kind: 'tls', ca: authority.cert, cert, key })
  }
  return (site, named = site) => made.get(named) as Security
}

/** A TCP proxy that can go silent in both directions without closing anything: a half-open link. */
export class SilentProxy {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly target: () => number
  #silent = false
  #cut = false

  private constructor(server: Server, target: () => number) {
    this.#server = server
    this.target = target
  }

  static async listen(target: () => number): Promise<SilentProxy> {
    const server = createServer()
    const proxy = new SilentProxy(server, target)
    server.on('connection', (socket) => proxy.#take(socket))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  #take(socket: Socket): void {
    if (this.#cut) return void socket.destroy()
    const other = connect(this.target(), '127.0.0.1')
    for (const [from, to] of [
      [socket, other],
      [other, socket],
    ] as const) {
      this.#sockets.add(from)
      from.on('data', (chunk: Buffer) => {
        if (!this.#silent) to.write(chunk)
      })
      from.on('error', () => to.destroy())
      from.on('close', () => {
        this.#sockets.delete(from)
        if (!this.#silent) to.destroy()
      })
    }
  }

  /** Swallows every byte from now on; connections stay as they are, and new ones get no answer. */
  goSilent(): void {
    this.#silent = true
  }

  /** Ends every connection and takes no new one. */
  cut(): void {
    this.#cut = true
    for (const socket of this.#sockets) socket.destroy()
  }

  /** Old connections are dead, new ones work. */
  heal(): void {
    this.#silent = false
    this.#cut = false
    for (const socket of this.#sockets) socket.destroy()
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
  }
}
