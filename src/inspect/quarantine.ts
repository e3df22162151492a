// SPDX-License-Identifier: Apache-2.0

import { adoptAddress, adoptObject, type Journal, releaseAddress, releaseObject } from '#allocator'
import { formatIp, tryParseIp } from '#base'
import { describeHolder, type Lease, listLeases } from './leases.ts'

/** Where an adopted address might still be known to somebody, it is not given out at once. */
export const ADOPTED_COOL_DOWN_MS = 30_000

/**
 * Ends the quarantine of an address, or of a whole port: `adopt` takes it for ours and nobody's, `release` has it taken away.
 * @param text an address, or the id or name of a port
 * @param port the id of the port that has the address, where several have it
 * @throws {Error} where it is not in quarantine, with what it is instead
 */
export function endQuarantine(journal: Journal, verb: 'adopt' | 'release', text: string, port?: string): Lease {
  const lease = findQuarantined(journal, verb, text, port)
  const { portId, mark, address } = lease
  const coolDownMs = ADOPTED_COOL_DOWN_MS
  if (mark !== null) {
    if (verb === 'adopt') adoptObject(journal, { mark, coolDownMs })
    else releaseObject(journal, mark)
  } else if (verb === 'adopt') adoptAddress(journal, { portId, address: address!, coolDownMs })
  else releaseAddress(journal, { portId, address: address! })
  return lease
}

function findQuarantined(journal: Journal, verb: string, text: string, port: string | undefined): Lease {
  const ip = tryParseIp(text)
  const wanted = ip === undefined ? text : formatIp(ip)
  const leases = listLeases(journal).filter(({ portId }) => port === undefined || portId === port)
  const named =
    ip === undefined
      ? leases.filter(
          ({ kind, portId, mark }) => kind !== 'address' && [portId, mark, `mooring-${mark}`].includes(wanted),
        )
      : leases.filter(({ address }) => address === wanted)
  const found = named.filter(({ state }) => state === 'quarantined')
  const ports = [...new Set(found.map(({ portId }) => portId))]
  if (ports.length > 1)
    throw new Error(
      `Cannot ${verb} ${wanted}: it is in quarantine on the ports ${ports.join(', ')}; name one of them: --port`,
    )
  if (found[0] !== undefined) return found[0]
  const [other] = named
  if (other === undefined)
    throw new Error(`Cannot ${verb} ${wanted}: the journal does not know it. See mooring ip list`)
  const whose = other.holder === null ? '' : ` (${describeHolder(other.holder)})`
  throw new Error(`Cannot ${verb} ${wanted}: it is ${other.state}${whose}, not in quarantine. See mooring ip list`)
}
