#pragma once  // all that it declares is there already
