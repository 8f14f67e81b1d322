import type { GuestNetwork, Switchboard } from '../driver.ts'

/** NICs whose cable ends nowhere: each is alone on a hub of its own. */
export function unconnected(): Switchboard & GuestNetwork {
  let hubs = 0
  return {
    async plug(_server, _nic, { held }) {
      return held ?? { type: 'hubport', hubid: ++hubs }
    },
    async unplug() {},
    addressed: async () => false,
    ask: async () => ({ kind: 'no_gateway', answer: Buffer.alloc(0) }),
  }
}
