import { join } from 'node:path'
import { sleep } from '#base/clock.ts'
import { BLOCK_BYTES } from './load/stamp.ts'
import { offsetOf } from './load/layout.ts'
import { Random } from '../../sim/world/random.ts'
import { at, compareAreas, compareFiles, scanExports, tellJudgement } from './audit.ts'
import { Events } from './events.ts'
import { Lab, otherSite, type Site } from './lab/lab.ts'
import { lastLines } from './lab/part.ts'
import { Authority, SEEN_WITHIN_MS } from './load/authority.ts'
import { Ledger, type Op } from './load/ledger.ts'
import { Load } from './load/load.ts'
import { Nemesis } from './nemesis.ts'
import { type Announced, isWell, type Made, Operator, type View } from './operator.ts'
import { type CampaignOptions, optionsOf } from './options.ts'
import type { Report } from './report.ts'
import { losesBoth, type Mode, planRound, type Round } from './schedule.ts'

/* A torture run: one lab, one load, round after round of faults, and after each round the demand that everything is well again.
 *
 * The oracle looks
 * - all the time: at who answers (authority.ts), and that no read is older than what was acknowledged before it was sent;
 * - after a failover, before the clients go on: that nothing acknowledged is missing, or, when a failover by force left a
 *   state in which the writer went on alone, that what is there is a prefix;
 * - after each round: that the group becomes protected by itself, all acknowledged operations are there, and both sites hold
 *   the same bytes;
 * - at the end: that both files of each pair are identical as a whole.
 */

const SETTLE_MS = 120_000
const DRAIN_MS = 20_000

export async function runCampaign(options: CampaignOptions): Promise<Report> {
  const campaign = new Campaign(options)
  return await campaign.run()
}

class Campaign {
  readonly #o: CampaignOptions
  readonly #events: Events
  readonly #acts = new Map<string, number>()
  #lab!: Lab
  #load!: Load
  #ledger!: Ledger
  #authority!: Authority
  #nemesis!: Nemesis
  #operator!: Operator
  #made!: Made
  #production: Site = 'az1'
  #rounds = 0
  #audits = 0
  #lost = 0
  #longestSettleMs = 0
  #longestStallMs = 0
  #onlyFlushedIsOwed = false
  /** Given up by a failover, and by which site. */
  #owed: { readonly site: Site; readonly ops: readonly Op[] } | undefined
  #delayTimer: NodeJS.Timeout | undefined

  constructor(options: CampaignOptions) {
    this.#o = options
    this.#events = new Events(options.clock, options.say)
  }

  async run(): Promise<Report> {
    const { clock, keep, disks, seed, signal } = this.#o
    const beganMs = clock.bootMs()
    this.#lab = await Lab.start({
      keep,
      disks,
      seed,
      onDeath: (host, how, log) => void this.#died(host, how, log),
    })
    let failed = true
    try {
      await this.#setUp()
      while (!signal.aborted && this.#wantsMore(beganMs)) {
        await this.#round(planRound(this.#o, this.#o.from + this.#rounds))
        this.#rounds++
        if (this.#events.violations.length > 0) break
      }
      await this.#load.stop()
      if (this.#events.violations.length === 0 && !signal.aborted) await this.#compareAll()
      failed = this.#events.violations.length > 0
    } catch (error) {
      if (!signal.aborted)
        this.#events.violation(`the run ended: ${(error as Error).stack ?? String(error)}`)
    } finally {
      await this.#load?.stop()
      this.#ledger?.close()
      clearInterval(this.#delayTimer)
      await this.#lab.close(keep || (failed && !signal.aborted))
    }
    return this.#report(beganMs, keep || failed)
  }

  #wantsMore(beganMs: number): boolean {
    const { rounds, clock, limitMs } = this.#o
    return (rounds === undefined || this.#rounds < rounds) && clock.bootMs() - beganMs < limitMs
  }

  async #died(host: string, how: string, log: string): Promise<void> {
    this.#events.violation(`${host} ended by itself (${how}): ${await lastLines(log, 6)}`)
  }

  async #setUp(): Promise<void> {
    const { clock, volumes, seed, chains, thinkMs } = this.#o
    const lab = this.#lab
    this.#events.add(`lab ${lab.name} in ${lab.directory}`)
    this.#operator = new Operator({ clock, api: lab.api, events: this.#events })
    this.#made = await this.#operator.setUp(volumes)
    this.#events.add(`group ${this.#made.group} with ${volumes} pairs`)
    this.#ledger = new Ledger(volumes, join(lab.directory, 'ledger'))
    this.#authority = new Authority(({ answer, before }) => {
      this.#events.violation(
        `two sites answered: ${answer.site} a ${answer.kind} sent at ${since(answer.sentMs)} and seen at ${since(answer.seenMs)}, after ${before.site} had answered a ${before.kind} at ${since(before.seenMs)}, and nobody had moved production`,
      )
    })
    const epochMs = clock.bootMs() - this.#events.nowMs
    const since = (ms: number) => `${((ms - epochMs) / 1000).toFixed(3)} s`
    this.#load = new Load({
      clock,
      random: new Random(seed),
      ledger: this.#ledger,
      authority: this.#authority,
      pairs: this.#made.pairs.map(({ id }) => id),
      chains,
      thinkMs,
      socketOf: (site) => lab.socketOf(site),
      onWrong: (what) => this.#events.violation(what),
    })
    this.#nemesis = new Nemesis({
      clock,
      lab,
      events: this.#events,
      onPowerLoss: (fault) => {
        if (!losesBoth(fault)) return
        this.#onlyFlushedIsOwed = true
        this.#load.pause()
        this.#load.trustReads(false)
      },
      breakGlass: (site) => this.#breakGlass(site),
    })
    this.#load.start()
    this.#watchOwnDelays()
    await this.#settle()
    await this.#audit()
  }

  /** The dating of answers rests on this process being on time. */
  #watchOwnDelays(): void {
    const { clock } = this.#o
    let lastMs = clock.bootMs()
    this.#delayTimer = setInterval(() => {
      const nowMs = clock.bootMs()
      const lateMs = nowMs - lastMs - 50
      if (lateMs > SEEN_WITHIN_MS)
        this.#events.add(`the runner itself was ${Math.round(lateMs)} ms late`)
      lastMs = nowMs
    }, 50)
  }

  // ---------------------------------------------------------------- a round

  async #round(round: Round): Promise<void> {
    const { clock } = this.#o
    this.#events.round = round.number
    this.#events.add(`round ${round.number}, production is ${this.#production}`)
    const roles = { production: this.#production, dr: otherSite(this.#production) }
    const backup = join(this.#lab.directory, `state-${round.number}`)
    const goesBack = round.faults.some(({ fault }) => fault.kind === 'old_state')
    if (goesBack) {
      await this.#lab.backUpState(backup)
      // Something for the old state not to know.
      await this.#reverse()
    }
    await this.#arbitrate(round.mode)
    const faults: Promise<void>[] = []
    for (const { afterMs, fault } of round.faults) {
      await sleep(clock, afterMs)
      faults.push(this.#nemesis.inflict(fault, roles, backup))
    }
    if (round.act !== 'none' && !goesBack) {
      await sleep(clock, round.actAfterMs)
      if (round.act === 'reverse') await this.#reverse()
      else await this.#failOver(round.act === 'failover_force')
    }
    await Promise.all(faults)
    this.#events.add('everything is put right')
    await this.#nemesis.heal()
    await this.#settle()
    await this.#judgePowerLoss()
    await this.#lookForDivergence()
    await this.#audit()
  }

  /** Both machines lost what was not durable. What was flushed must be there; the rest is from now on what was found. */
  async #judgePowerLoss(): Promise<void> {
    if (!this.#onlyFlushedIsOwed || this.#o.signal.aborted) return
    const pairs = this.#made.pairs.map(({ id }) => id)
    const socket = this.#lab.socketOf(this.#production)
    const scan = await scanExports(socket, pairs, this.#load.run)
    const judgement = this.#ledger.judge(at(scan))
    const { lost, lostDurable } = judgement
    this.#events.add(
      `after the loss of power at both sites: ${lost.length} operations are gone, ${lostDurable.length} of them had been flushed`,
    )
    if (lostDurable.length > 0 || judgement.damaged.length > 0) {
      this.#lost += lostDurable.length
      this.#events.violation(
        `after a loss of power at both sites: ${tellJudgement({ ...judgement, lost: lostDurable, disorder: [] })}`,
      )
    }
    this.#ledger.accept(at(scan))
    this.#onlyFlushedIsOwed = false
    this.#load.trustReads(true)
    this.#load.resume()
  }

  async #reverse(): Promise<void> {
    const to = otherSite(this.#production)
    this.#authority.mayMove(to, this.#o.clock.bootMs())
    this.#count('reverse', await this.#operator.reverse())
    await this.#followProduction()
  }

  async #failOver(force: boolean): Promise<void> {
    const from = this.#production
    const to = otherSite(from)
    // What is found must not be mixed with what comes after.
    this.#load.pause()
    try {
      const before = await this.#operator.look()
      const announced = force ? await this.#operator.announcedLoss(true) : undefined
      if (announced !== undefined) this.#load.trustReads(false)
      this.#authority.mayMove(to, this.#o.clock.bootMs())
      const outcome = await this.#operator.failOver(force)
      this.#count(force ? 'failover by force' : 'failover', outcome)
      const after = await this.#lookUntilAnswered()
      await this.#followProduction()
      if (after.record?.writer !== to) return
      this.#load.leave(from)
      const fromInSync =
        before?.record?.state === 'in_sync' && after.record.epoch === before.record.epoch + 1
      if (outcome === 'done') await this.#judgeMove(to, force && !fromInSync, announced)
    } finally {
      this.#load.trustReads(true)
      this.#load.resume()
    }
  }

  /** Before any client writes at the new site. */
  async #judgeMove(to: Site, mayLose: boolean, announced: Announced | undefined): Promise<void> {
    const pairs = this.#made.pairs.map(({ id }) => id)
    const scan = await scanExports(this.#lab.socketOf(to), pairs, this.#load.run)
    const judgement = this.#ledger.judge(at(scan))
    this.#audits++
    const { lost, disorder, damaged } = judgement
    const wrong = damaged.length > 0 || (mayLose ? disorder.length > 0 : lost.length > 0)
    this.#events.add(
      `after the failover to ${to}: ${lost.length} lost${mayLose ? ', as a failover by force may' : ''}`,
    )
    if (wrong) {
      this.#lost += lost.length
      this.#events.violation(`after the failover to ${to}: ${tellJudgement(judgement)}`)
    } else if (lost.length > 0) {
      const bytes = lost.reduce((sum, op) => sum + op.slots * BLOCK_BYTES, 0)
      this.#events.add(`${bytes} bytes are given up; announced was ${JSON.stringify(announced)}`)
      if (announced?.kind === 'nothing') {
        this.#events.violation(`a failover that was to give up nothing gave up ${bytes} bytes`)
      }
      this.#owed = { site: otherSite(to), ops: this.#ledger.accept(at(scan)) }
    }
  }

  /** What was given up must be in a record of the site that had it, now that its copy has been overwritten. */
  async #lookForDivergence(): Promise<void> {
    if (this.#owed === undefined) return
    const { site, ops } = this.#owed
    this.#owed = undefined
    const records = (await this.#operator.divergences()).filter(
      (one) => one.site === site && one.state === 'kept',
    )
    // Zeroes may have been zeroes at the winner, too.
    const missing = new Set(ops.filter(({ kind }) => kind === 'write'))
    const total = missing.size
    for (const { id } of records) {
      for (const [volume, { volumes }] of this.#made.pairs.entries()) {
        const ranges = await this.#operator.divergentRanges(id, volumes[site])
        const has = (slot: number) =>
          ranges.some(
            ({ offset, length }) =>
              offset <= offsetOf(slot) && offsetOf(slot) + BLOCK_BYTES <= offset + length,
          )
        for (const op of missing) {
          const slots = Array.from({ length: op.slots }, (_, index) => op.slot + index)
          if (op.volume === volume && slots.every(has)) missing.delete(op)
        }
      }
    }
    this.#events.add(
      `${records.length} divergence records of ${site} name ${total - missing.size} of ${total} writes that were given up`,
    )
    const [first] = missing
    if (first !== undefined) {
      this.#events.violation(
        `${missing.size} of ${total} writes that were given up are in no divergence record of ${site}, e.g. ${first.kind} ${first.sequence} at volume ${first.volume} byte ${offsetOf(first.slot)}`,
      )
    }
  }

  async #breakGlass(site: Site): Promise<void> {
    this.#load.pause()
    try {
      this.#authority.mayMove(site, this.#o.clock.bootMs())
      const flags = ['--force', '--yes', '--data-dir', join(this.#lab.diskOf(site), 'data')]
      const said = await this.#lab.holdfast('agent', 'promote', this.#made.group, ...flags)
      this.#events.add(`${site} was promoted by its operator: ${said.trim().split('\n')[0] ?? ''}`)
      this.#count('break-glass', 'done')
      this.#load.leave(otherSite(site))
      // Both were in step until the others were gone.
      await this.#judgeMove(site, false, undefined)
    } finally {
      this.#load.resume()
    }
  }

  async #arbitrate(mode: Mode): Promise<void> {
    const view = await this.#operator.look()
    const record = view?.record
    const isSo =
      record?.mode === mode && (mode === 'witness' || record.preferred === this.#production)
    if (record === undefined || record === null || isSo) return
    const outcome = await this.#operator.arbitrate(mode, this.#production)
    this.#count(`arbitration by ${mode}`, outcome)
    this.#events.add(`operator: arbitration by ${mode}, ${outcome}`)
    await this.#settle()
  }

  async #lookUntilAnswered(): Promise<View> {
    for (;;) {
      const view = await this.#operator.look()
      if (view !== undefined) return view
      await sleep(this.#o.clock, 100)
    }
  }

  async #followProduction(): Promise<void> {
    const view = await this.#operator.look()
    const site = view?.sides.find(({ role }) => role === 'production')?.site
    if (site === 'az1' || site === 'az2') this.#production = site
  }

  #count(act: string, outcome: string): void {
    const name = `${act}: ${outcome === 'done' ? 'done' : 'not done'}`
    this.#acts.set(name, (this.#acts.get(name) ?? 0) + 1)
  }

  // ---------------------------------------------------------------- afterwards

  /** Waits until the group is protected; the operator only repeats what is documented for the state it is in. */
  async #settle(): Promise<void> {
    const { clock, signal } = this.#o
    const beganMs = clock.bootMs()
    const acted = new Map<string, number>()
    for (let view = await this.#operator.look(); ; view = await this.#operator.look()) {
      if (signal.aborted) return
      if (view !== undefined && isWell(view)) break
      const tookMs = clock.bootMs() - beganMs
      if (tookMs > SETTLE_MS) {
        throw new Error(
          `the group did not become protected within ${SETTLE_MS} ms: ${JSON.stringify(view)}`,
        )
      }
      const lastMs = acted.get(view?.status ?? '') ?? 0
      if (view !== undefined && clock.bootMs() - lastMs > 2_000 && (await this.#help(view))) {
        acted.set(view.status, clock.bootMs())
      }
      await sleep(clock, 100)
    }
    await this.#followProduction()
    const tookMs = clock.bootMs() - beganMs
    this.#longestSettleMs = Math.max(this.#longestSettleMs, tookMs)
    this.#events.add(
      `in sync again after ${Math.round(tookMs)} ms, production is ${this.#production}`,
    )
  }

  /** True when something was done. */
  async #help(view: View): Promise<boolean> {
    switch (view.status) {
      case 'failed-over':
      case 'error-reprotecting':
      case 'error-starting':
      case 'available':
        this.#count('start', await this.#operator.start())
        return true
      case 'error-reversing':
        await this.#reverse()
        return true
      case 'error-failing-over':
        await this.#failOver(true)
        return true
      default:
        return false
    }
  }

  async #audit(): Promise<void> {
    if (this.#o.signal.aborted) return
    await this.#load.drain(DRAIN_MS)
    try {
      const pairs = this.#made.pairs.map(({ id }) => id)
      const scan = await scanExports(this.#lab.socketOf(this.#production), pairs, this.#load.run)
      const judgement = this.#ledger.judge(at(scan))
      this.#audits++
      if (judgement.lost.length > 0 || judgement.damaged.length > 0) {
        this.#lost += judgement.lost.length
        this.#events.violation(tellJudgement(judgement))
      }
      for (const [index, { volumes }] of this.#made.pairs.entries()) {
        const differences = await compareAreas(this.#lab, volumes)
        if (differences.length > 0) {
          this.#events.violation(
            `volume ${index} differs between the sites though in sync: ${differences.length} blocks, e.g. ${differences.slice(0, 5).join(', ')}`,
          )
        }
      }
      this.#ledger.settle()
      this.#authority.settled(this.#production)
      this.#events.add(
        `audit: ${this.#ledger.acknowledged} acknowledged, ${judgement.lost.length} lost, longest stall ${Math.round(this.#load.longestStallMs)} ms`,
      )
      this.#longestStallMs = Math.max(this.#longestStallMs, this.#load.longestStallMs)
      this.#load.markStall()
    } finally {
      this.#load.flow()
    }
  }

  async #compareAll(): Promise<void> {
    for (const [index, { volumes }] of this.#made.pairs.entries()) {
      const difference = await compareFiles(this.#lab, volumes)
      if (difference !== undefined) {
        this.#events.violation(`the files of volume ${index} differ at the end: ${difference}`)
      }
    }
    this.#events.add('the files of both sites are compared')
  }

  #report(beganMs: number, kept: boolean): Report {
    return {
      options: optionsOf(this.#o),
      seed: this.#o.seed,
      rounds: this.#rounds,
      seconds: Math.round((this.#o.clock.bootMs() - beganMs) / 100) / 10,
      faults: Object.fromEntries(this.#nemesis?.counts ?? []),
      acts: Object.fromEntries(this.#acts),
      operations: this.#ledger?.issued ?? 0,
      acknowledged: this.#ledger?.acknowledged ?? 0,
      lost: this.#lost,
      givenUp: this.#ledger?.givenUp ?? 0,
      moves: this.#authority?.moved ?? 0,
      load: this.#load?.counts ?? { reads: 0, flushes: 0, repeated: 0, noSpace: 0, ioErrors: 0 },
      longestStallMs: Math.round(Math.max(this.#longestStallMs, this.#load?.longestStallMs ?? 0)),
      longestSettleMs: Math.round(this.#longestSettleMs),
      audits: this.#audits,
      violations: this.#events.violations,
      directory: kept ? this.#lab.directory : undefined,
    }
  }
}
