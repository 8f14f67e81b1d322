import { type Clock, sleep } from '#base/clock.ts'
import type { Events } from './events.ts'
import { type Lab, SITES, type Site } from './lab/lab.ts'
import { type Host, HOSTS } from './lab/network.ts'
import { PowerDisk } from './power/power-disk.ts'
import { type Direction, type Fault, type Pair, type Target, tell } from './schedule.ts'

/* Carries faults out and takes them back. Several may last at the same time and concern the same part: it runs again when
 * the last one of them is over. */

export interface NemesisOptions {
  /** Called when the machines have stopped and before anything is forgotten. */
  readonly onPowerLoss: (fault: Fault) => void
  /** Makes `site` the writer on the operator's word. */
  readonly breakGlass: (site: Site) => Promise<void>
  readonly clock: Clock
  readonly lab: Lab
  readonly events: Events
}

export interface Roles {
  readonly production: Site
  readonly dr: Site
}

export class Nemesis {
  readonly #o: NemesisOptions
  /** How many faults keep a part down, or stopped. */
  readonly #down = new Map<Host, number>()
  readonly #stopped = new Map<Host, number>()
  /** By fault kind: how often it was begun. */
  readonly counts = new Map<string, number>()
  #sessionsReset = 0

  constructor(options: NemesisOptions) {
    this.#o = options
  }

  get connectionsReset(): number {
    return this.#sessionsReset
  }

  /** Settles when the fault is over. `backup`: the state that `old_state` goes back to. */
  async inflict(fault: Fault, roles: Roles, backup: string): Promise<void> {
    const { lab, events, clock } = this.#o
    events.add(`fault: ${tell(fault)}`)
    this.counts.set(fault.kind, (this.counts.get(fault.kind) ?? 0) + 1)
    switch (fault.kind) {
      case 'kill':
        return await this.#killFor([hostOf(fault.target, roles)], fault.forMs)
      case 'kill_together':
        return await this.#killFor(
          fault.targets.map((target) => hostOf(target, roles)),
          fault.forMs,
        )
      case 'pause':
        return await this.#pauseFor(hostOf(fault.target, roles), fault.forMs)
      case 'cut':
        return await this.#cutFor(ways(fault.pair, fault.direction, roles), fault.forMs)
      case 'isolate': {
        const host = hostOf(fault.target, roles)
        const others = HOSTS.filter((one) => one !== host)
        const cuts = others.flatMap((other): Way[] => [
          [host, other],
          [other, host],
        ])
        return await this.#cutFor(cuts, fault.forMs)
      }
      case 'flap':
        for (let time = 0; time < fault.times; time++) {
          await this.#cutFor(ways(fault.pair, 'both', roles), fault.everyMs)
          await sleep(clock, fault.everyMs)
        }
        return
      case 'reset':
        for (let time = 0; time < fault.times; time++) {
          for (const [a, b] of ways(fault.pair, 'forth', roles)) {
            this.#sessionsReset += await lab.network.reset(a, b)
          }
          await sleep(clock, fault.everyMs)
        }
        return
      case 'fill_disk':
        return await this.#fillFor(roles[fault.side], fault.forMs)
      case 'power':
        return await this.#cutPower(fault, roles)
      case 'break_glass':
        return await this.#leaveAlone(fault, roles)
      case 'old_state':
        return await this.#goBackTo(backup)
      default:
        return fault satisfies never
    }
  }

  async #killFor(
    hosts: readonly Host[],
    forMs: number,
    meanwhile: () => Promise<void> = async () => {},
  ): Promise<void> {
    const { lab, clock } = this.#o
    for (const host of hosts) this.#down.set(host, (this.#down.get(host) ?? 0) + 1)
    // Nothing is awaited between the signals.
    await Promise.all(hosts.map((host) => lab.parts[host].kill()))
    await meanwhile()
    await sleep(clock, forMs)
    await Promise.all(hosts.map((host) => this.#release(host)))
  }

  async #release(host: Host): Promise<void> {
    const left = (this.#down.get(host) ?? 1) - 1
    this.#down.set(host, left)
    if (left > 0) return
    this.#o.events.add(`${host} is started again`)
    await this.#start(host)
  }

  async #start(host: Host): Promise<void> {
    try {
      await this.#o.lab.parts[host].start()
    } catch (error) {
      this.#o.events.violation(`${host} did not start: ${String(error)}`)
    }
  }

  async #pauseFor(host: Host, forMs: number): Promise<void> {
    const { lab, clock, events } = this.#o
    this.#stopped.set(host, (this.#stopped.get(host) ?? 0) + 1)
    lab.parts[host].pause()
    await sleep(clock, forMs)
    const left = (this.#stopped.get(host) ?? 1) - 1
    this.#stopped.set(host, left)
    if (left > 0) return
    events.add(`${host} goes on`)
    lab.parts[host].resume()
  }

  async #cutFor(
    cuts: readonly Way[],
    forMs: number,
    meanwhile: () => Promise<void> = async () => {},
  ): Promise<void> {
    const { lab, clock, events } = this.#o
    for (const [from, to] of cuts) await lab.network.cut(from, to)
    await meanwhile()
    await sleep(clock, forMs)
    for (const [from, to] of cuts) await lab.network.mend(from, to)
    events.add('a cut is mended')
  }

  async #fillFor(site: Site, forMs: number): Promise<void> {
    const { lab, clock, events } = this.#o
    const disk = lab.disks.get(site)
    if (disk === undefined) return
    const bytes = await disk.fill()
    events.add(`the disk of ${site} is full, ${Math.round(bytes / 1024 / 1024)} MiB taken`)
    await sleep(clock, forMs)
    await disk.free()
    events.add(`the disk of ${site} has space`)
  }

  /** The DR site is alone, with nobody to ask; the operator goes there, and the others come back later. */
  async #leaveAlone(
    { how, forMs }: Extract<Fault, { kind: 'break_glass' }>,
    { production, dr }: Roles,
  ): Promise<void> {
    const { breakGlass } = this.#o
    if (how === 'kill') {
      return await this.#killFor([production, 'ctl'], forMs, () => breakGlass(dr))
    }
    const cuts = [production, 'ctl' as const].flatMap((other): Way[] => [
      [dr, other],
      [other, dr],
    ])
    // The control plane is dead, and production lives but hears nobody: until the operator is done, however long that takes. A production that was
    // given a lease meanwhile would rightly answer beside the other site.
    const broken = Promise.withResolvers<void>()
    await Promise.all([
      this.#cutFor(cuts, forMs, () => breakGlass(dr).finally(broken.resolve)),
      this.#killFor(['ctl'], forMs + 500, () => broken.promise),
    ])
  }

  async #cutPower(fault: Extract<Fault, { kind: 'power' }>, roles: Roles): Promise<void> {
    const { lab, clock, events, onPowerLoss } = this.#o
    const sites = fault.sides.map((side) => roles[side])
    for (const site of sites) this.#down.set(site, (this.#down.get(site) ?? 0) + 1)
    // Stopped first: from here on nothing is answered any more, so that what is durable now is all that was promised to be.
    for (const site of sites) lab.parts[site].pause()
    onPowerLoss(fault)
    for (const site of sites) {
      const disk = lab.disks.get(site)
      if (!(disk instanceof PowerDisk))
        throw new Error('the lab has no disks that lose their power')
      events.add(`${site} has no power: ${JSON.stringify(await disk.cut())}`)
    }
    for (const site of sites) {
      await lab.parts[site].kill()
      await lab.newBoot(site)
    }
    await sleep(clock, fault.forMs)
    for (const site of sites) {
      const disk = lab.disks.get(site)
      if (disk instanceof PowerDisk) await disk.on()
    }
    await Promise.all(sites.map((site) => this.#release(site)))
  }

  async #goBackTo(backup: string): Promise<void> {
    const { lab, events } = this.#o
    this.#down.set('ctl', (this.#down.get('ctl') ?? 0) + 1)
    await lab.parts.ctl.kill()
    await lab.restoreState(backup)
    events.add('the old state is restored')
    await this.#release('ctl')
  }

  /** Everything is put right. The faults themselves must have ended. */
  async heal(): Promise<void> {
    const { lab } = this.#o
    await lab.network.mendAll()
    for (const site of SITES) await lab.disks.get(site)?.free()
    for (const host of HOSTS) {
      this.#down.set(host, 0)
      this.#stopped.set(host, 0)
      lab.parts[host].resume()
      await this.#start(host)
    }
  }
}

type Way = readonly [Host, Host]

function hostOf(target: Target, { production, dr }: Roles): Host {
  switch (target) {
    case 'production':
      return production
    case 'dr':
      return dr
    case 'control':
      return 'ctl'
    default:
      return target satisfies never
  }
}

function ways(pair: Pair, direction: Direction, roles: Roles): Way[] {
  const ends: Record<Pair, Way> = {
    sites: [roles.production, roles.dr],
    'production-control': [roles.production, 'ctl'],
    'dr-control': [roles.dr, 'ctl'],
  }
  const [a, b] = ends[pair]
  const forth: Way = [a, b]
  const back: Way = [b, a]
  if (direction === 'both') return [forth, back]
  return direction === 'forth' ? [forth] : [back]
}
