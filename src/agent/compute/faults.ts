import { fault } from '#base/fault.ts'

/* Failures of servers and images at a site. The codes are part of the site contract. */

export const NO_DRIVER = fault({
  code: 'NO_DRIVER',
  retry: 'never',
  text: 'This site runs no servers.',
  hint: 'Configure a compute driver for the agent and restart it.',
})

export const SERVER_UNKNOWN = fault({
  code: 'SERVER_UNKNOWN',
  retry: 'never',
  text: 'There is no such server at this site.',
  hint: 'Define it first.',
})

export const STALE_GENERATION = fault({
  code: 'STALE_GENERATION',
  retry: 'never',
  text: 'A newer definition of the server was already given.',
  hint: 'Read the server again: another change came first.',
})

export const NOT_SERVED = fault({
  code: 'NOT_SERVED',
  retry: 'never',
  text: 'A disk of the server may not be written at this site now.',
  hint: 'Start the server at the production site, or fail over first.',
})

export const NO_MEMORY = fault({
  code: 'NO_MEMORY',
  retry: 'never',
  text: 'The site has not enough memory left for this server.',
  hint: 'Stop other servers, or choose a smaller flavor.',
})

export const GUEST_FAILED = fault({
  code: 'GUEST_FAILED',
  retry: 'never',
  text: 'The hypervisor did not start or change the guest.',
  hint: "Look at the reason and at the log of the guest in the agent's data directory.",
})

export const IMAGE_UNKNOWN = fault({
  code: 'IMAGE_UNKNOWN',
  retry: 'never',
  text: 'This site knows no such image.',
  hint: 'List the images of the site.',
})

export const IMAGE_FAILED = fault({
  code: 'IMAGE_FAILED',
  retry: 'never',
  text: 'The image could not be made available.',
  hint: 'Look at the reason: a package source that cannot be reached, a tool that is missing, or no space.',
})
