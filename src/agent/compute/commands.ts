import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'
import type { ComputeStatus, ServerBrief } from '#wire/site/servers.ts'

/** The commands about servers, and what reports say of them. Every one is idempotent; see src/wire/site/commands.ts. */
export interface GuestCommands {
  define(request: CommandRequest<'server.define'>): Promise<CommandAnswer<'server.define'>>
  start(request: CommandRequest<'server.start'>): Promise<CommandAnswer<'server.start'>>
  stop(request: CommandRequest<'server.stop'>): Promise<CommandAnswer<'server.stop'>>
  reboot(request: CommandRequest<'server.reboot'>): Promise<CommandAnswer<'server.reboot'>>
  remove(request: CommandRequest<'server.remove'>): Promise<CommandAnswer<'server.remove'>>
  show(request: CommandRequest<'server.show'>): Promise<CommandAnswer<'server.show'>>
  console(request: CommandRequest<'server.console'>): Promise<CommandAnswer<'server.console'>>
  probe(request: CommandRequest<'server.probe'>): Promise<CommandAnswer<'server.probe'>>
  /** For reports; answers from memory. */
  briefs(): readonly ServerBrief[]
  status(): ComputeStatus
}

/** The commands about images. They work at a site that runs no servers, too. */
export interface ImageCommands {
  images(): Promise<CommandAnswer<'image.list'>>
  prepareImage(request: CommandRequest<'image.prepare'>): Promise<CommandAnswer<'image.prepare'>>
  fillVolume(request: CommandRequest<'volume.fill'>): Promise<CommandAnswer<'volume.fill'>>
}

export interface ServerCommands extends GuestCommands, ImageCommands {}

/** Both, as the agent answers them. */
export function serverCommands(guests: GuestCommands, images: ImageCommands): ServerCommands {
  return {
    define: async (request) => await guests.define(request),
    start: async (request) => await guests.start(request),
    stop: async (request) => await guests.stop(request),
    reboot: async (request) => await guests.reboot(request),
    remove: async (request) => await guests.remove(request),
    show: async (request) => await guests.show(request),
    console: async (request) => await guests.console(request),
    probe: async (request) => await guests.probe(request),
    briefs: () => guests.briefs(),
    status: () => guests.status(),
    images: async () => await images.images(),
    prepareImage: async (request) => await images.prepareImage(request),
    fillVolume: async (request) => await images.fillVolume(request),
  }
}
