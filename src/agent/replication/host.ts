import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { assert, BrokenInvariant } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { EndedSessions } from './ended-sessions.ts'
import { NOT_YET, SESSION_UNKNOWN } from './faults.ts'
import { type LinkListener, listenForLinks } from './link.ts'
import { SessionRuntime } from './runtime.ts'
import { unopened } from './session/session.ts'
import type { SessionCommand, SessionHost, SessionHostDeps } from './types.ts'

/* All sessions of one agent: one listener, one pair of timers, and the commands of the control plane. */

/** Ticks per renewal interval or silence, whichever is shorter. */
const TICKS = 20
const TICK_MS_MIN = 20
const TICK_MS_MAX = 100

export function createSessionHost(deps: SessionHostDeps): SessionHost {
  return new Host(deps)
}

class Host implements SessionHost {
  readonly #deps: SessionHostDeps
  readonly #sessions = new Map<string, SessionRuntime>()
  /** Sessions that are over here, of which only the epoch file is left. */
  readonly #ended = new EndedSessions()
  /** Opening of a session that is not loaded yet; a second command waits for it. */
  readonly #loading = new Map<string, Promise<SessionRuntime>>()
  #listener: LinkListener | undefined
  readonly #timers: (() => void)[] = []
  #closed = false

  constructor(deps: SessionHostDeps) {
    this.#deps = deps
  }

  get linkAddress(): { readonly host: string; readonly port: number } {
    assert(this.#listener !== undefined, 'the host has been started')
    return this.#listener.address
  }

  async start(): Promise<void> {
    const { dataDir, link, log, settings } = this.#deps
    const directory = join(dataDir, 'sessions')
    await mkdir(directory, { recursive: true, mode: 0o700 })
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      if (!entry.isDirectory() || entry.name.includes('.')) continue
      try {
        const runtime = await this.#load(entry.name)
        await runtime.start()
      } catch (error) {
        // One session whose volume or state is gone must not keep the others from being served. Its volumes stay refused.
        if (error instanceof BrokenInvariant) throw error
        log.error({ session: entry.name, err: error }, 'session could not be started')
      }
    }
    this.#listener = await listenForLinks({
      ...link.listen,
      security: link.security,
      log,
      answer: (hello) => {
        const runtime = this.#sessions.get(hello.record.session)
        if (runtime !== undefined) return runtime.answerHello(hello)
        const text = 'this site does not know the session'
        return { kind: 'refuse', code: 'SESSION_UNKNOWN', text, record: null }
      },
      accepted: (accepted) => {
        const runtime = this.#sessions.get(accepted.hello.record.session)
        if (runtime === undefined) accepted.socket.destroy()
        else runtime.accepted(accepted)
      },
    })
    const fastest = Math.min(settings.renewMs, settings.peerSilenceMs) / TICKS
    const tickMs = Math.min(TICK_MS_MAX, Math.max(TICK_MS_MIN, fastest))
    this.#every(tickMs, (runtime) => runtime.tick())
    this.#every(settings.heartbeatMs, (runtime) => runtime.heartbeat())
    this.#timers.push(this.#showMovement())
  }

  #every(ms: number, work: (runtime: SessionRuntime) => void): void {
    let cancel: () => void = () => undefined
    const fire = () => {
      for (const runtime of this.#sessions.values()) work(runtime)
      if (!this.#closed) cancel = this.#deps.clock.after(ms, fire)
    }
    cancel = this.#deps.clock.after(ms, fire)
    this.#timers.push(() => cancel())
  }

  /** Peers hear when the data plane does not move: neither while this loop stands still, nor while a link's stream does. */
  #showMovement(): () => void {
    const { beats, clock, settings } = this.#deps
    if (beats === undefined) return () => undefined
    let cancel: () => void = () => undefined
    const show = () => {
      if (![...this.#sessions.values()].some(({ blocked }) => blocked)) beats.moved()
      if (!this.#closed) cancel = clock.after(settings.heartbeatMs, show)
    }
    show()
    return () => cancel()
  }

  async #load(id: string): Promise<SessionRuntime> {
    const known = this.#sessions.get(id)
    if (known !== undefined) return known
    const loading =
      this.#loading.get(id) ??
      SessionRuntime.load(id, this.#deps, () => this.#forget(id))
        .then((runtime) => {
          this.#sessions.set(id, runtime)
          this.#ended.delete(id)
          return runtime
        })
        .finally(() => this.#loading.delete(id))
    this.#loading.set(id, loading)
    return await loading
  }

  #forget(id: string): void {
    const session = this.#sessions.get(id)?.session
    this.#sessions.delete(id)
    if (session === undefined) return
    const { epoch, state, writer } = session.stored.record
    if (state === 'closed' && epoch > 0) {
      this.#ended.set({ session: id, epoch, writer }, session.silence.overAtMs())
    }
  }

  #known(id: string): SessionRuntime {
    const runtime = this.#sessions.get(id)
    if (runtime === undefined) throw new Fault(SESSION_UNKNOWN, `session ${id}`, { session: id })
    return runtime
  }

  async command<N extends SessionCommand>(
    name: N,
    request: CommandRequest<N>,
  ): Promise<CommandAnswer<N>> {
    return (await this.#command(name, request)) as CommandAnswer<N>
  }

  async #command(name: SessionCommand, request: unknown): Promise<unknown> {
    const as = <M extends SessionCommand>(): CommandRequest<M> => request as CommandRequest<M>
    switch (name) {
      case 'session.open': {
        const open = as<'session.open'>()
        const runtime = await this.#load(open.record.session)
        try {
          return await runtime.open(open)
        } catch (error) {
          // A session that never came into being leaves nothing behind, one that is over only its last epoch.
          const { epoch, state } = runtime.session.stored.record
          if (epoch === unopened('').record.epoch) await runtime.discard()
          else if (state === 'closed') await runtime.retire()
          throw error
        }
      }
      case 'session.hold': {
        const hold = as<'session.hold'>()
        return await this.#known(hold.session).hold(hold)
      }
      case 'session.release': {
        const { session, epoch } = as<'session.release'>()
        await this.#known(session).release(epoch)
        return {}
      }
      case 'session.remove': {
        const remove = as<'session.remove'>()
        await this.#sessions.get(remove.session)?.remove(remove)
        return {}
      }
      case 'session.close': {
        await this.#close(as<'session.close'>())
        return {}
      }
      case 'session.show':
        return this.#known(as<'session.show'>().session).status()
      case 'session.arbitrate': {
        const arbitrate = as<'session.arbitrate'>()
        return await this.#known(arbitrate.session).arbitrate(arbitrate)
      }
      case 'session.promote': {
        const promote = as<'session.promote'>()
        return await this.#known(promote.session).promote(promote)
      }
      case 'session.rate': {
        const { session, copy_rate_bytes } = as<'session.rate'>()
        await this.#known(session).setRate(copy_rate_bytes)
        return {}
      }
      case 'session.verify': {
        const verify = as<'session.verify'>()
        return await this.#known(verify.session).verify(verify)
      }
      case 'session.verify_show':
        return this.#known(as<'session.verify_show'>().session).verifyStatus()
      case 'session.verify_cancel': {
        const { session, run } = as<'session.verify_cancel'>()
        return await this.#known(session).cancelVerify(run)
      }
    }
  }

  /**
   * Never opened here: there is nothing to end. Over already: a newer record that is closed as well says that another site has come to write outside of any
   * session. It is kept, so that a control plane that forgets it (a restored database) hears of it. If that is this site, its volumes are served
   * next, so it is not taken before the writer of the time before has certainly fallen silent (decision 0156).
   */
  async #close(request: CommandRequest<'session.close'>): Promise<void> {
    const { session, epoch, writer } = request.record
    const { clock, site } = this.#deps
    const known = this.#sessions.get(session)
    if (known === undefined && (this.#ended.epochOf(session) ?? epoch) >= epoch) return
    if (writer === site && this.#ended.otherMayAnswer(session, site, clock.bootMs())) {
      throw new Fault(NOT_YET, `handing session ${session} over: its old writer may still answer`)
    }
    const runtime = known ?? (await this.#load(session))
    try {
      await runtime.closeUnder(request)
    } catch (error) {
      if (runtime.session.stored.record.state === 'closed') await runtime.retire()
      throw error
    }
  }

  rebuild(request: CommandRequest<'volume.rebuild'>): Promise<SessionStatus> {
    return this.#known(request.session).rebuild(request)
  }

  statuses() {
    return [...this.#sessions.values()].map((runtime) => runtime.status())
  }

  roleAt(id: string) {
    const session = this.#sessions.get(id)?.session
    if (session === undefined) return undefined
    return { role: session.role, epoch: session.stored.record.epoch }
  }

  ended() {
    return this.#ended.part()
  }

  usesVolume(volume: string): boolean {
    return [...this.#sessions.values()].some((runtime) => runtime.usesVolume(volume))
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const cancel of this.#timers) cancel()
    await Promise.all([...this.#sessions.values()].map((runtime) => runtime.close()))
    await this.#listener?.close()
  }
}
