// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatPrefix, isV4, tryParsePrefix } from '#base'
import { type Call, CniError, checkExpressible, codes, type Plugin, type Result } from '#cni'
import type { World } from '../../world.ts'

/** Always this link, whatever CNI_IFNAME says. */
const NAME = 'lo'
/** The kernel gives it whenever the link goes up; the result of another plugin does not tell of it. */
const ALWAYS = '127.0.0.1/8'

/** Brings the container's `lo` up, on which the kernel then puts 127.0.0.1 and ::1. Has nothing to remember. */
export const loopback: Plugin<World> = {
  type: 'loopback',
  add,
  del,
  check,
  // What it needs is there wherever there is a namespace, and it leaves nothing outside of that.
  status: async () => {},
  gc: async () => {},
}

async function add(call: Call, world: World): Promise<Result> {
  const { prevResult } = call
  if (prevResult !== undefined) checkExpressible(prevResult, call.cniVersion)
  const found = await world.host.bringLoopbackUp({ netnsFd: call.netnsFd! })
  if ('foreign' in found)
    throw new CniError(
      codes.kernel,
      `loopback interface found with non-loopback address "${formatIp(found.foreign)}"`,
      { details: `remove it, or attach ${NAME} before what adds it: ip netns exec … ip address del … dev ${NAME}` },
    )
  if (prevResult !== undefined) return prevResult
  const { addresses } = found
  const first = [addresses.find(({ ip }) => isV4(ip)), addresses.find(({ ip }) => !isV4(ip))]
  return {
    interfaces: [{ name: NAME, mac: '00:00:00:00:00:00', sandbox: call.netns }],
    ips: first.filter(each => each !== undefined).map(each => ({ address: formatPrefix(each), interface: 0 })),
  }
}

async function del(call: Call, world: World): Promise<void> {
  if (call.netnsFd !== undefined) await world.host.takeLoopbackDown({ netnsFd: call.netnsFd })
}

async function check(call: Call, world: World): Promise<void> {
  const { interfaces = [], ips = [] } = call.prevResult ?? {}
  const index = interfaces.findIndex(({ name, sandbox }) => name === NAME && (sandbox ?? '') !== '')
  const own = interfaces[index]
  if (own !== undefined && own.sandbox !== call.netns)
    throw new CniError(
      codes.checkFailed,
      `Sandbox in prevResult ${own.sandbox} doesn't match configured netns ${call.netns}`,
    )
  const told = own === undefined ? [] : ips.filter(ip => ip.interface === index).map(({ address }) => address)
  const addresses = (told.length > 0 ? told : [ALWAYS]).map(address => tryParsePrefix(address)!)
  const { isUp, faults } = await world.host.checkLoopback({ netnsFd: call.netnsFd!, addresses })
  if (!isUp) throw new CniError(codes.checkFailed, 'loopback interface is down', { details: `ip link set ${NAME} up` })
  if (faults.length > 0) throw new CniError(codes.checkFailed, faults[0]!, { details: faults.slice(1).join('; ') })
}
