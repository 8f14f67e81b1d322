import type {
  NewServerDisk,
  NewServerRequest,
} from '#control/operations/definitions/servers/server-requests.ts'
import { imageId } from '#control/resources/images.ts'
import { PROJECT } from './region.ts'

/* Wishes for servers and disks; `over` has what the test is about. */

export const newServer = (over: Partial<NewServerRequest> = {}): NewServerRequest => ({
  project: PROJECT,
  user: 'c'.repeat(32),
  name: 'box',
  description: null,
  az: 'az1',
  flavor: 't2.micro',
  image: imageId('holdfast-tiny'),
  disks: [],
  nics: [],
  keyName: null,
  metadata: {},
  tags: {},
  autoRecovery: false,
  ...over,
})

export const newDisk = (over: Partial<NewServerDisk> = {}): NewServerDisk => ({
  source: { kind: 'blank' },
  sizeGb: 1,
  bootIndex: null,
  device: null,
  deleteWithServer: false,
  type: null,
  ...over,
})
