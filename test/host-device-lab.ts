// SPDX-License-Identifier: Apache-2.0

// What the tests of host-device share: one end of a veth pair is the NIC.

import { afterEach } from 'node:test'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  eventually,
  type Netns,
  type Node,
  run,
} from './nodelab.ts'
import { suiteNode } from './suite-node.ts'

export const DONE = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
export const MAC = '02:00:00:00:00:55'

/** The NIC without addresses. */
export const alone = { type: 'host-device', device: 'dev23', ipam: undefined }
export const withAddress = (more: object = {}) => ({
  ...{ type: 'host-device', device: 'dev23', cniVersion: '1.1.0' },
  ipam: {
    type: 'static',
    addresses: [{ address: '10.50.0.9/24', gateway: '10.50.0.1' }],
    routes: [{ dst: '0.0.0.0/0' }],
  },
  ...more,
})

/** See `suiteNode`. */
export function hostDeviceLab(mode: Node['mode']) {
  const at = suiteNode({ mode, bringForGood: plugIn })
  const plugInAgain = async () => {
    await plugIn(at.node)
    at.keep()
  }
  afterEach(async () => {
    if (!at.node.ip('-o link').includes(' dev23@')) await plugInAgain()
  })
  const { newPod: newContainer } = at
  return Object.assign(at as Omit<typeof at, 'newPod'>, {
    plugInAgain,
    newPod: (more: Partial<Attachment> = {}) => newContainer({ type: 'host-device', ...more }),
    call: (verb: Parameters<Node['call']>[0], it: Attachment, more: object = alone, options: CallOptions = {}) =>
      at.node.call(verb, it, { ...options, more }),
    /** The kernel tells of a carrier a moment after the link is up. */
    async assertBack(): Promise<void> {
      const isBack = () => at.node.state().sort().join('\n') === at.kept.toSorted().join('\n')
      await eventually('the NIC is back', isBack, 1_000).catch(() => undefined)
      assertSameState(at.node.state(), at.kept)
    },
  })
}

/** A NIC of the node that has everything which moving it takes away. */
async function plugIn(node: Netns): Promise<void> {
  const lines = [
    'link add dev23 type veth peer name peer23 address 02:00:00:00:00:56',
    'link set peer23 up',
    `link set dev23 mtu 1400 address ${MAC} alias storage up`,
    'link property add dev dev23 altname enp0s23',
    'addr add 10.99.0.5/24 brd + dev dev23 label dev23:a',
    'addr add 10.99.0.6/24 dev dev23',
    'addr add fd00:99::5/64 dev dev23 nodad',
    'route add 10.98.0.0/16 via 10.99.0.1 metric 7',
    'route add default via 10.99.0.1 table 100',
    'route add 2001:db8:98::/48 via fd00:99::1',
  ]
  run('ip', ['-n', node.name, '-batch', '-'], lines.join('\n'))
  await eventually('carrier', () => (node.ip('-o link').match(/LOWER_UP/g) ?? []).length === 4)
  // The kernel makes it a moment after the address.
  await eventually('the address is used', () => node.ip('-6 route show table local').includes('fd00:99::5'))
}
