// SPDX-License-Identifier: Apache-2.0

// Goal: ipvlan does what the CNI specification and the reference's conformance list say, seen from outside, by the
// installed executables. Needs root, and a kernel with ipvlan.

import { childTests, childTestsStandalone } from './child-link.ts'

childTestsStandalone('ipvlan')
childTests('ipvlan')
