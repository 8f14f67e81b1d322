import { type Fault, fault, isFault } from '#base/fault.ts'
import type { CommandAnswer, CommandName, CommandRequest } from '#wire/site/commands.ts'

/** Sends commands to the agent of a site. Every command is idempotent, so a lost answer is asked for again. */
export interface SiteClient {
  /**
   * Sends one command to the freshest agent of `site` and returns its checked answer. Faults: SITE_UNKNOWN (no
   * agent ever reported), SITE_UNREACHABLE, SITE_BUSY (both worth repeating), SITE_REFUSED (`refusalCode` says why),
   * SITE_ANSWER_INVALID.
   */
  command<Name extends CommandName>(
    site: string,
    name: Name,
    request: CommandRequest<Name>,
    options?: CommandOptions,
  ): Promise<CommandAnswer<Name>>
  close(): Promise<void>
}

export interface CommandOptions {
  readonly signal?: AbortSignal
  /** Longest wait for the whole answer. Default 30 s: opening a session fences and flushes. */
  readonly timeoutMs?: number
}

export const SITE_UNKNOWN = fault({
  code: 'SITE_UNKNOWN',
  retry: 'later',
  text: 'No agent of the site has ever reported.',
  hint: 'Start an agent there, or check the name of the site.',
})
export const SITE_UNREACHABLE = fault({
  code: 'SITE_UNREACHABLE',
  retry: 'later',
  text: 'The agent of the site did not answer.',
  hint: 'Check that it runs and that the control plane reaches its command address.',
})
export const SITE_BUSY = fault({
  code: 'SITE_BUSY',
  retry: 'later',
  text: 'The agent could not carry out the command now.',
  hint: 'It is repeated by itself. The agent says more in its log.',
})
export const SITE_REFUSED = fault({
  code: 'SITE_REFUSED',
  retry: 'never',
  text: 'The agent refused the command.',
  hint: 'The refusal says why and what to do.',
})
export const SITE_ANSWER_INVALID = fault({
  code: 'SITE_ANSWER_INVALID',
  retry: 'never',
  text: 'The agent and the control plane do not understand each other.',
  hint: 'Run the same release on both.',
})

/** The agent's own code of a refusal (`STALE_EPOCH`, `NOT_CONSISTENT`, `VOLUME_BUSY` ...), or null for other errors. */
export function refusalCode(error: unknown): string | null {
  if (!isFault(error, SITE_REFUSED)) return null
  const { refusal } = (error as Fault).detail
  return typeof refusal === 'string' ? refusal : null
}
