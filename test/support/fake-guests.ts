/** Guests that are nothing but a line in memory, for tests of the control plane: a site's agent answers as if they were there. */
import type { ServerCommands } from '#agent/compute/commands.ts'
import { SERVER_UNKNOWN, STALE_GENERATION } from '#agent/compute/faults.ts'
import { Fault, fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import type { CommandName } from '#wire/site/commands.ts'
import type { ProbeAnswer, ProbeRequest } from '#wire/site/probes.ts'
import type { Power, ServerDefinition, ServerInfo } from '#wire/site/servers.ts'

export interface FakeGuest {
  definition: ServerDefinition
  power: Power
  since: number
  reason: string | null
  /** Volumes that it has; a running one keeps those that it is asked back while `clinging`. */
  disks: string[]
}

export interface FakeGuests extends ServerCommands {
  readonly guests: Map<string, FakeGuest>
  /** Running guests do not release disks. */
  clinging: boolean
  /** Commands that are refused with NO_MEMORY, as many times as it says. */
  readonly refusing: Map<CommandName, number>
  /** Commands that came, in order. */
  readonly log: { readonly command: CommandName; readonly server: string; readonly at: number }[]
  /** What probes of running guests find; by default every one succeeds at once. */
  found: (request: ProbeRequest) => ProbeAnswer
  /** The guest ends, or begins, by itself. */
  turn(server: string, power: Power, reason?: string): void
}

const NO = fault({ code: 'NO_MEMORY', retry: 'never', text: 'The site is full.', hint: 'None.' })

export function fakeGuests(): FakeGuests {
  const guests = new Map<string, FakeGuest>()
  const refusing = new Map<CommandName, number>()
  const log: FakeGuests['log'] = []
  const fills = new Map<string, number>()
  let lastMs = 0
  /** Later than any moment before, as the order of two events in one millisecond would be lost. */
  const nowMs = () => (lastMs = Math.max(lastMs + 1, systemClock.wallMs()))

  function came(command: CommandName, server: string): void {
    log.push({ command, server, at: systemClock.wallMs() })
    const left = refusing.get(command) ?? 0
    if (left === 0) return
    refusing.set(command, left - 1)
    throw new Fault(NO, `${command} of ${server}`)
  }
  function the(server: string): FakeGuest {
    const guest = guests.get(server)
    if (guest === undefined) throw new Fault(SERVER_UNKNOWN, server)
    return guest
  }
  function turn(guest: FakeGuest, power: Power, reason: string | null = null): void {
    if (guest.power === power) return
    Object.assign(guest, { power, reason, since: nowMs() })
    guest.disks = guest.definition.disks.map((disk) => disk.volume)
  }
  function settle(guest: FakeGuest): void {
    const wanted = guest.definition.disks.map((disk) => disk.volume)
    const kept = fake.clinging && guest.power === 'running' ? guest.disks : []
    guest.disks = [...new Set([...kept, ...wanted])]
  }
  function info(server: string): ServerInfo {
    const guest = the(server)
    settle(guest)
    const { definition } = guest
    const wanted = new Map(definition.disks.map((disk) => [disk.volume, disk.device]))
    return {
      server,
      generation: definition.generation,
      power: guest.power,
      power_since: guest.since,
      reason: guest.reason,
      disks: guest.disks
        .filter((volume) => wanted.has(volume))
        .map((volume) => ({ volume, device: wanted.get(volume) ?? '' })),
      nics: definition.nics.map(({ port, mac }) => ({ port, mac })),
      releasing: guest.disks.filter((volume) => !wanted.has(volume)),
    }
  }

  const fake: FakeGuests = {
    guests,
    clinging: false,
    refusing,
    log,
    found: () => ({ ok: true, detail: 'found', since_start_ms: 1, output: '' }),
    async probe(request) {
      came('server.probe', request.server)
      const { power } = the(request.server)
      if (power === 'running') return fake.found(request)
      return { ok: false, detail: `the guest is ${power}`, since_start_ms: null, output: '' }
    },
    turn: (server, power, reason) => turn(the(server), power, reason ?? null),
    async define({ definition }) {
      const { server, generation } = definition
      came('server.define', server)
      const known = guests.get(server)
      if (known !== undefined && generation < known.definition.generation) {
        throw new Fault(STALE_GENERATION, server)
      }
      if (known === undefined) {
        guests.set(server, { definition, power: 'off', since: nowMs(), reason: null, disks: [] })
      } else known.definition = definition
      return info(server)
    },
    async start({ server }) {
      came('server.start', server)
      turn(the(server), 'running')
      return info(server)
    },
    async stop({ server }) {
      came('server.stop', server)
      const guest = guests.get(server)
      if (guest !== undefined) turn(guest, 'off')
      if (guest !== undefined) return info(server)
      return {
        server,
        generation: 1,
        power: 'off',
        power_since: nowMs(),
        reason: null,
        disks: [],
        nics: [],
        releasing: [],
      }
    },
    async reboot({ server }) {
      came('server.reboot', server)
      const guest = the(server)
      guest.power = 'off'
      turn(guest, 'running')
      return info(server)
    },
    async remove({ server }) {
      came('server.remove', server)
      guests.delete(server)
      return {}
    },
    async show({ server }) {
      return info(server)
    },
    console: async ({ server }) => ({ output: `console of ${the(server).definition.name}\n` }),
    images: async () => ({ images: [] }),
    prepareImage: async ({ image }) => ({
      image,
      state: 'ready',
      size_bytes: 1024,
      sha256: null,
      reason: null,
    }),
    async fillVolume({ volume, image, fill }) {
      came('volume.fill', volume)
      const times = (fills.get(`${volume} ${fill}`) ?? 0) + 1
      fills.set(`${volume} ${fill}`, times)
      return {
        volume,
        image,
        state: times < 2 ? 'filling' : 'filled',
        done_bytes: times < 2 ? 512 : 1024,
        total_bytes: 1024,
      }
    },
    briefs: () =>
      [...guests.keys()].map((server) => {
        const { generation, power, power_since, reason } = info(server)
        return { server, generation, power, power_since, reason }
      }),
    status: () => ({ driver: 'fake', accelerator: 'none', memory_mb: 1024, memory_used_mb: 0 }),
  }
  return fake
}
