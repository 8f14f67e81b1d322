import { Fault, fault, isFault } from '#base/fault.ts'
import { drAz, productionAz } from '#control/resources/groups.ts'
import { drServer, productionServer } from '#control/resources/instances.ts'
import { findPlan } from '#control/resources/recovery.ts'
import { updateServer } from '#control/resources/servers.ts'
import { addChore } from '#control/resources/surroundings.ts'
import { refusalCode, SITE_NEVER_SEEN, SITE_UNREACHABLE } from '#control/sites/client.ts'
import type { Power, ServerInfo } from '#wire/site/servers.ts'
import { childrenStep, type Step, step, type StepContext } from '../../operation.ts'
import { addEntities } from '../../records.ts'
import { standDown, switchingInstances } from './instance-identity.ts'
import { foretell } from '../recovery/forecast.ts'
import { defineServer, powerOffServer } from '../servers/server-definition.ts'
import { submitRecovery } from '../recovery/recovery.ts'
import { submitStart } from '../servers/server-start.ts'
import { powerOf } from '../servers/servers.ts'
import { theGroup } from '../protection/session.ts'

/* What a switch of a group does to its servers, once the station has moved. Nothing here fails the switch: it has happened. A site that
 * does not answer gets its definitions from power-sync.ts and its orders from the list of chores when it returns; until then its guests
 * have lost their disks, for the agent fences by itself what it may no longer serve.
 */

export const PRODUCTION_SERVER_RUNS = fault({
  code: 'PRODUCTION_SERVER_RUNS',
  retry: 'never',
  text: 'A protected server at the production site runs.',
  hint: 'Shut the production servers down and repeat; they stay off until the switch has ended.',
})

/** An order to one server; a site that was just heard and is gone must not hold a failover up for longer. */
const ORDER_MS = 10_000

/** Servers of the group at one of its sites, in the roles that the group's row says now. */
async function serversAt(
  ctx: StepContext<unknown>,
  role: 'production' | 'dr',
): Promise<{ readonly site: string; readonly servers: readonly string[] }> {
  const { db } = ctx.services.store
  const group = await theGroup(db, ctx.resourceId)
  const serverOf = role === 'production' ? productionServer : drServer
  return {
    site: role === 'production' ? productionAz(group) : drAz(group),
    servers: (await switchingInstances(db, group.id)).map((instance) => serverOf(group, instance)),
  }
}

interface Fenced {
  readonly site: string
  /** Those that the site did not answer for. */
  readonly missed: readonly string[]
  /** What it said of the others. */
  readonly told: readonly Pick<ServerInfo, 'server' | 'power' | 'power_since'>[]
}

/** The former production servers are powered off; at a silent site, as soon as it is heard. */
export function fenceServers<Input>(): Step<Input> {
  return step<Input, Fenced>('fence_servers', {
    act: async (ctx) => {
      const { site, servers } = await serversAt(ctx, 'dr')
      const told: Fenced['told'][number][] = []
      const missed = await each(ctx, site, servers, async (server, signal) => {
        const info = await powerOffServer(ctx.services, server, { hard: true, signal })
        told.push({ server, power: info.power, power_since: info.power_since })
      })
      return { site, missed, told }
    },
    record: async (tx, ctx, { site, missed, told }) => {
      const now = ctx.services.clock.wallMs()
      // A report from before it was switched off may still come, and must not pass for news.
      for (const { server, ...info } of told) {
        if (info.power !== 'off') continue
        await updateServer(tx, server, powerOf(info), now)
        await standDown(tx, server, now)
      }
      for (const server of missed) {
        const request = { server, hard: true, grace_ms: 0 }
        await addChore(tx, { site, command: 'server.stop', request }, now)
      }
    },
  })
}

/** Both sites get the definitions of the new roles, the new production servers first. */
export function defineServers<Input>(): Step<Input> {
  return step('define_servers', {
    act: async (ctx) => {
      for (const role of ['production', 'dr'] as const) {
        const { site, servers } = await serversAt(ctx, role)
        await each(ctx, site, servers, async (server, signal) => {
          await defineServer(ctx.services, server, { signal })
        })
      }
    },
  })
}

/** Before a planned switch: the sites' own word, now, that no production server runs. */
export function serversAreOff<Input>(): Step<Input> {
  return step('servers_are_off', {
    act: async (ctx) => {
      await foretell(ctx, 'reverse')
      const { site, servers } = await serversAt(ctx, 'production')
      for (const server of servers) {
        const power = await powerAt(ctx, site, server)
        if (power === 'off') continue
        throw new Fault(PRODUCTION_SERVER_RUNS, `server ${server} at ${site} is ${power}`)
      }
    },
  })
}

async function powerAt(ctx: StepContext<unknown>, site: string, server: string): Promise<Power> {
  try {
    const info = await ctx.services.sites.command(
      site,
      'server.show',
      { server },
      { signal: ctx.signal },
    )
    return info.power
  } catch (error) {
    const code = refusalCode(error)
    // A site that does not know it, or runs no servers at all, does not run this one.
    if (code === 'SERVER_UNKNOWN' || code === 'NO_DRIVER') return 'off'
    throw error
  }
}

/**
 * The new production servers, if the group wants that: all at once, or in the order of its recovery plan, which goes on by itself
 * (recovery.ts) when the switch has ended. One that does not start says so by itself.
 */
export function startServers<Input>(): Step<Input> {
  return childrenStep('start_servers', {
    submit: async (tx, ctx, submit) => {
      const group = await theGroup(tx, ctx.resourceId)
      if (group.start_servers === 0) return
      if ((await findPlan(tx, group.id)) !== undefined) {
        const reason = group.status === 'failed-over' ? 'failover' : 'reverse'
        const now = ctx.services.clock.wallMs()
        const recovery = await submitRecovery(tx, ctx, submit, group, reason, now)
        return await addEntities(tx, ctx.id, { recovery })
      }
      for (const instance of await switchingInstances(tx, group.id)) {
        await submitStart(tx, ctx, submit, productionServer(group, instance))
      }
    },
    ended: async (_, ctx, children) => {
      const failed = children.filter(({ status }) => status !== 'succeeded')
      if (failed.length > 0) {
        ctx.services.log.warn({ group: ctx.resourceId, failed }, 'servers did not start')
      }
    },
  })
}

/** Runs `act` for each server and answers those for which the site was silent. After the first of them no more are tried. */
async function each(
  ctx: StepContext<unknown>,
  site: string,
  servers: readonly string[],
  act: (server: string, signal: AbortSignal) => Promise<void>,
): Promise<readonly string[]> {
  const missed: string[] = []
  for (const server of servers) {
    if (!ctx.services.agents.heard(site) || missed.length > 0) {
      missed.push(server)
      continue
    }
    try {
      await act(server, AbortSignal.any([ctx.signal, AbortSignal.timeout(ORDER_MS)]))
    } catch (error) {
      ctx.signal.throwIfAborted()
      const silent =
        isTimeout(error) || isFault(error, SITE_UNREACHABLE) || isFault(error, SITE_NEVER_SEEN)
      if (!silent && !isFault(error)) throw error
      ctx.services.log.warn({ err: error, server, site }, 'a server was not told of the switch')
      if (silent) missed.push(server)
    }
  }
  return missed
}

const isTimeout = (error: unknown): boolean =>
  error instanceof DOMException && error.name === 'TimeoutError'
