import { systemClock } from '#base/system/clock.ts'
import { createLog } from '#base/log.ts'
import type { Netdev } from '../driver.ts'
import { definitionOf } from './nic.test-kit.ts'
import { openSwitchboard } from './switchboard.ts'

/* An agent's switch as a process of its own, to be killed: plugs the NICs named by `DOMAIN.NETWORK.HOST` arguments and prints
 * what the guests are to be started with. */

const [directory = '', ...places] = process.argv.slice(2)
const switchboard = await openSwitchboard({
  directory,
  clock: systemClock,
  log: createLog('switch', 'silent'),
})
const netdevs: Record<string, Netdev> = {}
for (const place of places) {
  const [domain = 0, network = 0, host = 0] = place.split('.').map(Number)
  netdevs[place] = await switchboard.plug(place, definitionOf(domain, network, host), {
    name: `server ${place}`,
    held: undefined,
  })
}
process.stdout.write(`${JSON.stringify(netdevs)}\n`)
process.stdin.resume()
