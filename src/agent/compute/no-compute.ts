import { Fault } from '#base/fault.ts'
import type { GuestCommands, ImageCommands } from './commands.ts'
import { IMAGE_UNKNOWN, NO_DRIVER } from './faults.ts'

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
    briefs: () => [],
    status: () => ({ driver: 'none', accelerator: 'none', memory_mb: 0, memory_used_mb: 0 }),
  }
}

/** An agent that can make no images. */
export function noImages(): ImageCommands {
  const none = async (image: string): Promise<never> => {
    throw new Fault(IMAGE_UNKNOWN, `image ${image}`, { image })
  }
  return {
    images: async () => ({ images: [] }),
    prepareImage: async ({ image }) => await none(image),
    fillVolume: async ({ image }) => await none(image),
  }
}
