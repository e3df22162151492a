// SPDX-License-Identifier: Apache-2.0

import {
  boolean,
  type Call,
  CniError,
  codes,
  decode,
  integer,
  type JsonObject,
  object,
  optional,
  parseCniArgs,
  string,
} from '#cni'
import { type MacvlanMode, macvlanModes } from '#rtnetlink'
import type { ChildConfig } from '../../child-link.ts'
import { dnsKeys, resultDns } from '../../lease.ts'
import { wantedMac } from '../../mac.ts'

const U32_MAX = 0xffffffff

const schema = object({
  /** The link that the container's link is on. Default: that of the default route. */
  master: optional(string, ''),
  mode: optional(string, ''),
  /** 0: the master's. */
  mtu: optional(integer(), 0),
  mac: optional(string, ''),
  /** The master is in the container. */
  linkInContainer: optional(boolean, false),
  /** How many broadcast packets may wait for the links of the master. 0: the kernel's 1000. */
  bcqueuelen: optional(integer(0, U32_MAX), 0),
  runtimeConfig: optional(object({ mac: optional(string, '') })),
  dns: optional(dnsKeys),
})

/** The modes that make sense for one container; `source` needs a list of MACs that no configuration has. */
const modes = ['bridge', 'private', 'vepa', 'passthru'] as const satisfies readonly MacvlanMode[]

/** Reads a configuration. @throws {CniError} 7 naming the key, 4 for CNI_ARGS */
export function parseConfig(config: JsonObject, call: Call): ChildConfig {
  const { master, mode, mtu, linkInContainer, bcqueuelen, runtimeConfig, dns, ...rest } = decode(schema, config)
  const { MAC } = parseCniArgs(call.args, ['MAC'])
  const known = mode === '' ? 'bridge' : modes.find(each => each === mode)
  if (known === undefined)
    throw new CniError(codes.invalidConfig, `unknown macvlan mode: "${mode}"`, {
      details: `"mode" is one of ${modes.join(', ')}`,
    })
  const data = { mode: macvlanModes[known], ...(bcqueuelen === 0 ? {} : { bcQueueLen: bcqueuelen }) }
  return {
    ...{ master, mtu, masterInPod: linkInContainer, info: { kind: 'macvlan', data }, layer2: true },
    mac: wantedMac(runtimeConfig?.mac, MAC, rest.mac),
    sharesMac: known === 'passthru',
    inherited: undefined,
    needsAnswers: false,
    dns: resultDns(dns),
  }
}
