import { Fault } from '#base/fault.ts'
import type { GuestCommands } from './commands.ts'
import { NO_DRIVER } from './faults.ts'

/** An agent without a compute driver: it stores volumes and runs no servers. */
export function noCompute(): GuestCommands {
  const none = async (): Promise<never> => {
    throw new Fault(NO_DRIVER, 'asked for a server')
  }
  return {
    define: none,
    start: none,
    stop: none,
    reboot: none,
    remove: async () => ({}),
    show: none,
    console: none,
    probe: none,
    briefs: () => [],
    status: () => ({ driver: 'none', accelerator: 'none', memory_mb: 0, memory_used_mb: 0 }),
  }
}
