import { join } from 'node:path'
import { type Clock, sleep } from '#base/clock.ts'
import { connectNbd } from '#client/nbd/client.ts'
import { compareFiles } from '../torture/audit.ts'
import { Events } from '../torture/events.ts'
import {
  Lab,
  LEASE_DRIFT_MS,
  type LabTiming,
  otherSite,
  type Site,
  SITES,
} from '../torture/lab/lab.ts'
import { HOSTS } from '../torture/lab/network.ts'
import { type Made, Operator, type View } from '../torture/operator.ts'
import { Book, type Issue, tellIssues } from './book.ts'
import { Client } from './client.ts'
import { type Happening, type Remedy, type Row, type Step, tellHappening, tellRow } from './rows.ts'

/* Tries rows of the table: a control plane and two agents as real processes in network namespaces, a client at each site.
 *
 *     mode set, in sync, production where the row wants it
 *       ─► step by step: it happens, both sites come to stand as the row says, and stay so for longer than a lease
 *       ─► what an operator may and may not do; the remedy; every answered write is there (or what is given up was announced)
 *       ─► everything is mended: in sync again, everything is there, both files are the same bytes
 *
 * All the while a site answers only when the row says so. Throws with what was wrong.
 */

/** Longest time until the sites stand as they should, on a busy machine. */
const STAND_MS = 40_000
const HEAL_MS = 60_000
const LOOK_MS = 50

export interface Outcome {
  readonly row: number
  readonly seconds: number
  /** From the step's beginning until both sites stood as they should, ms. */
  readonly standMs: readonly number[]
  /** From the remedy's beginning until a write was answered, ms; null: nothing was needed. */
  readonly remedyMs: number | null
  /** Given up by a failover by force, as announced. */
  readonly givenUp: number
}

export class Stage {
  readonly #clock: Clock
  readonly #timing: LabTiming
  readonly #lab: Lab
  readonly #operator: Operator
  readonly #made: Made
  readonly #events: Events
  readonly #book = new Book()
  readonly #deaths: string[]

  private constructor(parts: {
    clock: Clock
    timing: LabTiming
    lab: Lab
    operator: Operator
    made: Made
    events: Events
    deaths: string[]
  }) {
    this.#clock = parts.clock
    this.#timing = parts.timing
    this.#lab = parts.lab
    this.#operator = parts.operator
    this.#made = parts.made
    this.#events = parts.events
    this.#deaths = parts.deaths
  }

  static async start(options: {
    readonly clock: Clock
    readonly timing: LabTiming
    readonly keep: boolean
    readonly say: (line: string) => void
  }): Promise<Stage> {
    const { clock, timing, keep, say } = options
    const deaths: string[] = []
    const lab = await Lab.start({
      keep,
      disks: 'small',
      seed: 1,
      timing,
      onDeath: (host, how) => void deaths.push(`${host} ended by itself: ${how}`),
    })
    try {
      const events = new Events(clock, say)
      const operator = new Operator({ clock, api: lab.api, events })
      const made = await operator.setUp(1)
      return new Stage({ clock, timing, lab, operator, made, events, deaths })
    } catch (error) {
      await lab.close()
      throw error
    }
  }

  async close(keep?: boolean): Promise<void> {
    await this.#lab.close(keep)
  }

  get directory(): string {
    return this.#lab.directory
  }

  /** `number`: of the row, for what is told. */
  async try(row: Row, number: number): Promise<Outcome> {
    const beganMs = this.#clock.bootMs()
    this.#events.add(`row ${number} (${row.mode}): ${tellRow(row)}`)
    const preferred: Site = 'az1'
    const other: Site = 'az2'
    const production = row.production === 'other' ? other : preferred
    await this.#arrange(row, preferred, production)
    const clients = this.#clients()
    try {
      for (const site of SITES) clients[site].start()
      const standMs: number[] = []
      const first: Step = {
        happens: [],
        preferred: production === preferred ? 'serves' : 'refuses',
        other: production === preferred ? 'refuses' : 'serves',
      }
      for (const step of [first, ...row.steps]) {
        const fromMs = this.#clock.bootMs()
        await Promise.all(step.happens.map((one) => this.#happen(one, preferred, other)))
        const what = step.happens.map(tellHappening).join(' and ')
        if (what !== '') this.#events.add(what)
        standMs.push(await this.#stand(step, clients, fromMs))
      }
      const served = await this.#tryRemedy(row, clients, production)
      await this.#heal(row, served.site)
      await this.#everythingThere(clients, served.site)
      const seconds = Math.round((this.#clock.bootMs() - beganMs) / 100) / 10
      const { remedyMs, givenUp } = served
      return { row: number, seconds, standMs: standMs.slice(1), remedyMs, givenUp }
    } finally {
      await Promise.all(SITES.map((site) => clients[site].stop()))
    }
  }

  #clients(): Record<Site, Client> {
    const exportName = this.#made.pairs[0]?.id ?? ''
    const client = (site: Site) =>
      new Client({
        clock: this.#clock,
        site,
        socket: this.#lab.socketOf(site),
        exportName,
        book: this.#book,
      })
    return { az1: client('az1'), az2: client('az2') }
  }

  // ---------------------------------------------------------------- before

  async #arrange(row: Row, preferred: Site, production: Site): Promise<void> {
    await this.#settled()
    const view = await this.#look()
    if (view.record?.writer !== production) {
      this.#expect('reversal', await this.#operator.reverse(), 'done')
      await this.#settled()
    }
    await this.#until('the mode is set', HEAL_MS, async () => {
      const record = (await this.#look()).record
      if (record?.mode === row.mode && record.preferred === preferred) return true
      await this.#operator.arbitrate(row.mode, preferred)
      return false
    })
    await this.#settled()
  }

  async #look(): Promise<View> {
    const view = await this.#operator.look()
    if (view === undefined) throw new Error('the control plane does not answer')
    return view
  }

  /** In sync, by the record and by what both sides say under it. */
  async #settled(): Promise<void> {
    await this.#until('in sync', HEAL_MS, async () => {
      const view = await this.#operator.look()
      const record = view?.record
      return (
        record?.state === 'in_sync' &&
        record.trusted &&
        view?.status === 'protected' &&
        view.sync === 'in_sync' &&
        view.sides.every(({ heard, session }) => heard && session?.['epoch'] === record.epoch)
      )
    })
  }

  // ---------------------------------------------------------------- what happens

  async #happen(one: Happening, preferred: Site, other: Site): Promise<void> {
    const { parts, network } = this.#lab
    const cut = async (a: Site | 'ctl', b: Site | 'ctl') =>
      await Promise.all([network.cut(a, b), network.cut(b, a)])
    switch (one) {
      case 'LINK':
        await cut(preferred, other)
        return
      case 'PREFERRED-WITNESS':
        await cut(preferred, 'ctl')
        return
      case 'OTHER-WITNESS':
        await cut(other, 'ctl')
        return
      case 'PREFERRED':
        return await parts[preferred].kill()
      case 'OTHER':
        return await parts[other].kill()
      case 'WITNESS':
        return await parts.ctl.kill()
      case 'link':
        await network.mend(preferred, other)
        await network.mend(other, preferred)
        return
      case 'preferred':
        return await parts[preferred].start()
      case 'other':
        return await parts[other].start()
      case 'witness':
        return await parts.ctl.start()
      default:
        return one satisfies never
    }
  }

  /** Settles when both sites stand as the step says, and have for longer than anything that would change it takes. */
  async #stand(step: Step, clients: Record<Site, Client>, fromMs: number): Promise<number> {
    const { leaseMs, peerSilenceMs, witnessTimeoutMs } = this.#timing
    const waits = step.preferred === 'waits' || step.other === 'waits'
    const stayMs =
      step.happens.length === 0
        ? 0
        : leaseMs + LEASE_DRIFT_MS + (waits ? 2 * peerSilenceMs + witnessTimeoutMs : 0) + 1_000
    let sinceMs: number | undefined
    let found = ''
    for (;;) {
      const nowMs = this.#clock.bootMs()
      // What was met before it happened says nothing.
      const after = Math.max(fromMs, nowMs - 1_000)
      const standing = {
        preferred: clients.az1.standing(after),
        other: clients.az2.standing(after),
      }
      found = `preferred ${standing.preferred ?? '?'}, other ${standing.other ?? '?'}`
      const isSo = standing.preferred === step.preferred && standing.other === step.other
      if (!isSo) sinceMs = undefined
      else sinceMs ??= nowMs
      if (sinceMs !== undefined && nowMs - sinceMs >= stayMs) return Math.round(sinceMs - fromMs)
      if (nowMs - fromMs > STAND_MS + stayMs) {
        throw new Error(
          `expected: preferred ${step.preferred}, other ${step.other}; found: ${found}${this.#died()}`,
        )
      }
      this.#nobodyElse(step, clients, fromMs)
      await sleep(this.#clock, LOOK_MS)
    }
  }

  /** A site that should refuse has answered nothing that was sent since. */
  #nobodyElse(step: Step, clients: Record<Site, Client>, fromMs: number): void {
    const silent: Site[] = []
    if (step.preferred === 'refuses' || step.preferred === 'gone') silent.push('az1')
    if (step.other === 'refuses' || step.other === 'gone') silent.push('az2')
    for (const site of silent) {
      const answer = clients[site].answers.find(({ sentMs }) => sentMs > fromMs)
      if (answer !== undefined) throw new Error(`${site} answered where it must not`)
    }
  }

  // ---------------------------------------------------------------- the operator

  async #tryRemedy(
    row: Row,
    clients: Record<Site, Client>,
    production: Site,
  ): Promise<{ readonly site: Site; readonly remedyMs: number | null; readonly givenUp: number }> {
    const { remedy, plain } = row
    if (plain === 'refused') await this.#refused('a plain failover', this.#operator.failOver(false))
    if (remedy === 'off') await this.#refused('force alone', this.#operator.failOver(true))
    if (plain === 'waits') await this.#waits(this.#operator.failOver(false))
    if (remedy === 'nothing') return { site: production, remedyMs: null, givenUp: 0 }
    const to = otherSite(production)
    const announced = remedy === 'force' ? await this.#operator.announcedLoss(true) : undefined
    const before = this.#clock.bootMs()
    const outcome = await this.#remedy(remedy, to)
    this.#expect(`${remedy} failover`, outcome, 'done')
    await this.#until(
      `${to} serves`,
      STAND_MS,
      async () => clients[to].standing(before) === 'serves',
    )
    const remedyMs = Math.round((clients[to].answers[0]?.seenMs ?? 0) - before)
    const left = this.#clock.bootMs()
    const gone = await this.#missingAt(to)
    if (remedy === 'force') {
      if (gone.length > 0 && announced?.kind === 'nothing') {
        throw new Error(`${gone.length} writes are gone, and nothing was announced`)
      }
      this.#book.forget(gone)
    } else if (gone.length > 0) {
      throw new Error(`writes are not at ${to}: ${tellIssues(gone)}`)
    }
    const late = clients[production].answers.find(({ sentMs }) => sentMs > left)
    if (late !== undefined) throw new Error(`${production} answers beside ${to}`)
    return { site: to, remedyMs, givenUp: gone.length }
  }

  async #remedy(remedy: Exclude<Remedy, 'nothing'>, to: Site): Promise<string> {
    if (remedy !== 'break-glass') {
      return await this.#operator.failOver(remedy !== 'plain', remedy === 'off')
    }
    const data = join(this.#lab.diskOf(to), 'data')
    const flags = ['--force', '--yes', '--data-dir', data]
    const said = await this.#lab.holdfast('agent', 'promote', this.#made.group, ...flags)
    this.#events.add(said.trim().split('\n')[0] ?? '')
    return 'done'
  }

  /** It is accepted and does not end; what becomes of it later is not this row's. */
  async #waits(asked: Promise<string>): Promise<void> {
    this.#asked = asked
    const waited = sleep(this.#clock, this.#timing.leaseMs).then(() => 'waits')
    this.#expect('a plain failover', await Promise.race([asked, waited]), 'waits')
  }
  #asked: Promise<string> | undefined

  async #refused(what: string, asked: Promise<string>): Promise<void> {
    if ((await asked) === 'done') throw new Error(`${what} was accepted`)
  }

  // ---------------------------------------------------------------- after

  async #heal(row: Row, writer: Site): Promise<void> {
    const { network, parts } = this.#lab
    if (row.remedy === 'break-glass') {
      // As its runbook wants it: the witness learns of it before the other site is back.
      await network.mend(writer, 'ctl')
      await network.mend('ctl', writer)
      await parts.ctl.start()
      await this.#failedOver()
    }
    await network.mendAll()
    for (const host of HOSTS) await parts[host].start()
    this.#events.add('everything is back')
    await this.#asked
    if (row.remedy !== 'nothing') {
      await this.#failedOver()
      await this.#until('it is protected again', HEAL_MS, async () => {
        return (await this.#operator.start()) === 'done'
      })
    }
    await this.#settled()
    const found = (await this.#look()).record?.writer
    this.#expect('production', found ?? 'none', writer)
  }

  async #failedOver(): Promise<void> {
    await this.#until('the group follows its record', HEAL_MS, async () => {
      return (await this.#operator.look())?.status === 'failed-over'
    })
  }

  async #everythingThere(clients: Record<Site, Client>, writer: Site): Promise<void> {
    const fromMs = this.#clock.bootMs()
    await this.#until(`${writer} serves in the end`, STAND_MS, async () => {
      return clients[writer].standing(fromMs) === 'serves'
    })
    await Promise.all(SITES.map((site) => clients[site].stop()))
    const gone = await this.#missingAt(writer)
    if (gone.length > 0) throw new Error(`writes are gone in the end: ${tellIssues(gone)}`)
    const volumes = this.#made.pairs[0]?.volumes
    if (volumes === undefined) throw new Error('there is no pair')
    let difference: string | undefined = ''
    // The replica applies the last writes a moment after they were answered.
    await this.#until('both files are the same', 5_000, async () => {
      difference = await compareFiles(this.#lab, volumes)
      return difference === undefined
    }).catch((error: unknown) => {
      throw new Error(`${(error as Error).message}: ${difference}`)
    })
    if (this.#deaths.length > 0) throw new Error(this.#deaths.join('; '))
  }

  async #missingAt(site: Site): Promise<Issue[]> {
    const exportName = this.#made.pairs[0]?.id ?? ''
    const client = await connectNbd({ unix: this.#lab.socketOf(site) }, { exportName })
    try {
      return await this.#book.missing((offset, bytes) => client.read(offset, bytes))
    } finally {
      client.destroy()
    }
  }

  #died(): string {
    return this.#deaths.length === 0 ? '' : ` (${this.#deaths.join('; ')})`
  }

  #expect(what: string, found: string, wanted: string): void {
    if (found !== wanted) throw new Error(`${what}: ${found}, expected ${wanted}`)
  }

  async #until(what: string, limitMs: number, check: () => Promise<boolean>): Promise<void> {
    const endMs = this.#clock.bootMs() + limitMs
    while (!(await check())) {
      if (this.#clock.bootMs() > endMs) {
        const view = JSON.stringify(await this.#operator.look())
        throw new Error(`${what}: not within ${limitMs} ms${this.#died()}; ${view}`)
      }
      await sleep(this.#clock, 100)
    }
  }
}
