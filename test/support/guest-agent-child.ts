/**
 * The guests' half of an agent as a process of its own, so that it can be killed: `DIR` as its argument, commands at `DIR/door`.
 * After the command crash_at it ends itself by SIGKILL at the N-th boundary of a call to its driver.
 */
import { join } from 'node:path'
import type { ComputeDriver } from '#agent/compute/driver.ts'
import { openServers } from '#agent/compute/servers.ts'
import { openSwitchboard } from '#agent/compute/switch/switchboard.ts'
import { systemClock } from '#base/system/clock.ts'
import { openDoor } from '#base/system/door.ts'
import { labLog, openGuestLab } from './guest-lab.ts'

const [directory = ''] = process.argv.slice(2)
const CALLS = ['define', 'start', 'powerDown', 'stop', 'remove', 'attach', 'detach'] as const

const lab = await openGuestLab(directory, {
  switchboard: await openSwitchboard({
    directory: join(directory, 'net'),
    clock: systemClock,
    log: labLog,
  }),
})
let boundariesLeft = Number.POSITIVE_INFINITY
function boundary(): void {
  if (--boundariesLeft === 0) process.kill(process.pid, 'SIGKILL')
}

const driver = new Proxy(lab.driver, {
  get(target, name) {
    const value: unknown = Reflect.get(target, name, target)
    if (typeof value !== 'function') return value
    const call = value as (...args: unknown[]) => unknown
    if (!CALLS.includes(name as (typeof CALLS)[number])) return call.bind(target)
    return async (...args: unknown[]) => {
      boundary()
      const answer = await (call.apply(target, args) as Promise<unknown>)
      boundary()
      return answer
    }
  },
}) as ComputeDriver

const servers = await openServers({
  directory: join(directory, 'servers'),
  driver,
  disks: lab.disks,
  memoryMb: 1_024,
  clock: systemClock,
  log: labLog,
})

await openDoor(join(directory, 'door'), async (asked) => {
  const { command, request } = asked as { command: string; request: never }
  switch (command) {
    case 'crash_at':
      boundariesLeft = (request as { boundaries: number }).boundaries
      return {}
    case 'define':
      return await servers.define(request)
    case 'start':
      return await servers.start(request)
    case 'stop':
      return await servers.stop(request)
    case 'reboot':
      return await servers.reboot(request)
    case 'remove':
      return await servers.remove(request)
    case 'show':
      return await servers.show(request)
    case 'probe':
      return await servers.probe(request)
    default:
      return await servers.console(request)
  }
})
process.stdout.write('ready\n')
