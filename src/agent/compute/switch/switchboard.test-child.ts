import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import type { ServerNic } from '#wire/site/servers.ts'
import type { Netdev } from '../driver.ts'
import { openSwitchboard } from './switchboard.ts'

/* An agent's switch as a process of its own, to be killed: plugs the NICs of its second argument, each of a server named after its port,
 * and prints what the guests are to be started with, as one line of JSON. */

const [directory = '', nics = ''] = process.argv.slice(2)
const switchboard = await openSwitchboard({
  directory,
  clock: systemClock,
  log: createLog('switch'),
})
const netdevs: Netdev[] = []
for (const nic of JSON.parse(nics) as ServerNic[]) {
  netdevs.push(await switchboard.plug(nic.port, nic, { name: nic.port, held: undefined }))
}
process.stdout.write(`${JSON.stringify(netdevs)}\n`)
process.stdin.resume()
