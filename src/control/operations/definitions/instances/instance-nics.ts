import { Fault, fault } from '#base/fault.ts'
import { moveInstance, productionServer, readInstance } from '#control/resources/instances.ts'
import { deletePort, movePort, readPort, updatePort } from '#control/resources/networks.ts'
import { readServer, updateServer } from '#control/resources/servers.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { defineUntil } from './guest-follows.ts'
import { restInstance, theInstance } from './instances.ts'
import { defineServer, raiseGeneration } from '../servers/server-definition.ts'
import { unlessSilent } from '../protection/session.ts'

/* NICs and flavors of protected instances. A NIC belongs to the instance: the production server wears it, and after a switch the other
 * one. A NIC that goes keeps its port, and so its address, until the guest has released it. */

export const NIC_NOT_TAKEN = fault({
  code: 'NIC_NOT_TAKEN',
  retry: 'never',
  text: 'The guest did not get the NIC.',
  hint: "Look at the reason, and at the log of the site's agent; add the NIC while the server is off.",
})
export const NIC_NOT_RELEASED = fault({
  code: 'NIC_NOT_RELEASED',
  retry: 'never',
  text: 'The guest does not let go of the NIC.',
  hint: 'Take the interface down in the guest and repeat, or delete the NIC while the server is off.',
})

const NIC_MS = 30_000

export interface NicOfInstance {
  readonly port: string
  /** Its place, to put it back. */
  readonly place: number
  /** A caller made the port before its server. */
  readonly callers: boolean
}

export const addNic = operation<NicOfInstance>('instance.add-nic', {
  version: 1,
  steps: [
    step('plug', {
      act: async (ctx) => {
        const { port } = ctx.input
        const row = await readPort(ctx.services.store.db, port)
        // After a failover in the meantime it is the other server that wears it.
        const server = row?.server ?? null
        if (server === null) return
        const has = (info: ServerInfo) =>
          info.power !== 'running' || info.nics.some((nic) => nic.port === port)
        const info = await defineUntil(ctx, server, has, NIC_MS)
        if (has(info)) return
        const why = info.reason ?? 'no reason was given'
        throw new Fault(NIC_NOT_TAKEN, `adding NIC ${port} to ${server}: ${why}`)
      },
      record: (tx, ctx) => restInstance(tx, ctx, ctx.resourceId),
    }),
  ],
  failed: async (tx, ctx) => {
    const row = await readPort(tx, ctx.input.port)
    if (row !== undefined) {
      await deletePort(tx, row.id)
      if (row.server !== null) await raiseGeneration(tx, row.server)
    }
    await restIfThere(tx, ctx)
  },
})

export const deleteNic = operation<NicOfInstance>('instance.delete-nic', {
  version: 1,
  steps: [
    step('unplug', {
      act: async (ctx) => {
        const { port } = ctx.input
        const { instance, group } = await theInstance(ctx.services.store.db, ctx.resourceId)
        const server = productionServer(group, instance)
        const gone = (info: ServerInfo) => !info.nics.some((nic) => nic.port === port)
        const info = await defineUntil(ctx, server, gone, NIC_MS)
        if (!gone(info)) throw new Fault(NIC_NOT_RELEASED, `deleting NIC ${port} of ${server}`)
      },
      record: async (tx, ctx) => {
        await deletePort(tx, ctx.input.port)
        await restInstance(tx, ctx, ctx.resourceId)
      },
    }),
  ],
  failed: async (tx, ctx) => {
    const instance = await readInstance(tx, ctx.resourceId)
    if (instance === undefined) return
    const { group } = await theInstance(tx, ctx.resourceId)
    const server = productionServer(group, instance)
    if ((await readPort(tx, ctx.input.port)) !== undefined) {
      await movePort(tx, ctx.input.port, server, ctx.input.place)
      await updatePort(tx, ctx.input.port, { deleteWithServer: !ctx.input.callers })
      await raiseGeneration(tx, server)
    }
    await restIfThere(tx, ctx)
  },
})

/** There is no state for a failure here: the instance is as it was. */
async function restIfThere(tx: Transaction, ctx: StepContext<unknown>): Promise<void> {
  const instance = await readInstance(tx, ctx.resourceId)
  if (instance?.status === 'nic-creating' || instance?.status === 'nic-deleting') {
    await restInstance(tx, ctx, instance.id)
  }
}

// ---------------------------------------------------------------- resize

export interface ResizeInstance {
  /** Servers and their new flavors. All are off, and stay so while it lasts. */
  readonly flavors: readonly { readonly server: string; readonly flavor: string }[]
}

export const resizeInstance = operation<ResizeInstance>('instance.resize', {
  version: 1,
  steps: [
    step('set_flavors', {
      record: async (tx, ctx) => {
        for (const { server, flavor } of ctx.input.flavors) {
          await updateServer(tx, server, { flavor }, ctx.services.clock.wallMs())
          await raiseGeneration(tx, server)
        }
      },
    }),
    step('define', {
      act: async (ctx) => {
        for (const { server: id } of ctx.input.flavors) {
          const server = await readServer(ctx.services.store.db, id)
          if (server === undefined) continue
          // They are off: the definition is in time when they are started.
          await unlessSilent(ctx, server.az, () =>
            defineServer(ctx.services, id, { signal: ctx.signal }),
          )
        }
      },
      record: async (tx, ctx) => {
        await endTasks(tx, ctx)
        await restInstance(tx, ctx, ctx.resourceId)
      },
    }),
  ],
  failed: async (tx, ctx) => {
    await endTasks(tx, ctx)
    const instance = await readInstance(tx, ctx.resourceId)
    if (instance?.status !== 'resizing') return
    await moveInstance(tx, instance.id, 'error-resizing', ctx.services.clock.wallMs())
  },
})

async function endTasks(tx: Transaction, ctx: StepContext<ResizeInstance>): Promise<void> {
  for (const { server } of ctx.input.flavors) {
    const row = await readServer(tx, server)
    if (row?.task !== 'resizing') continue
    await updateServer(tx, server, { task: null }, ctx.services.clock.wallMs())
  }
}
