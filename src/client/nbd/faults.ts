import { fault } from '#base/fault.ts'

export const NBD_REFUSED = fault({
  code: 'NBD_REFUSED',
  retry: 'later',
  text: 'The NBD server does not serve this export now.',
  hint: 'The reason is the server’s own. If the group moved to the other site, connect there.',
})

export const NBD_DISCONNECTED = fault({
  code: 'NBD_DISCONNECTED',
  retry: 'later',
  text: 'The NBD connection ended; requests without an answer may or may not have been carried out.',
  hint: 'Connect again, to the other site if this one lost its authority, and repeat the requests that were not answered.',
})

export const NBD_IO_ERROR = fault({
  code: 'NBD_IO_ERROR',
  retry: 'never',
  text: 'The NBD server answered a request with an error.',
  hint: '5: the volume has failed, see its status. 22: the request is outside the volume. 28: no space.',
})

export const NBD_PROTOCOL = fault({
  code: 'NBD_PROTOCOL',
  retry: 'never',
  text: 'The server did not speak the NBD protocol as expected.',
  hint: 'Check that the address belongs to an NBD server and that both sides agree on TLS.',
})
